// IVRS for host amd-top: as amd-ivmd, but the last block ends where the address space ends.
// The raised OEM revision makes the kernel take this table for QEMU's own.
                       Signature : "IVRS"
                    Table Length : 00000000
                        Revision : 01
                        Checksum : 00
                          Oem ID : "BOCHS "
                    Oem Table ID : "BXPC    "
                    Oem Revision : 00000002
                 Asl Compiler ID : "BXPC"
           Asl Compiler Revision : 00000001
             Virtualization Info : 00002800
                        Reserved : 0000000000000000

                   Subtable Type : 10
                           Flags : D1
                          Length : 0028
                        DeviceId : 0008
               Capability Offset : 0040
                    Base Address : 00000000FED80000
               PCI Segment Group : 0000
             Virtualization Info : 0000
               Feature Reporting : 00000044
                      Entry Type : 03
                       Device ID : 0000
                    Data Setting : 00
                      Entry Type : 04
                       Device ID : FFFF
                    Data Setting : 00
                      Entry Type : 48
                       Device ID : 0000
                    Data Setting : 00
                          Handle : 00
           Source Used Device ID : 00A0
                         Variety : 01

                   Subtable Type : 21
                           Flags : 07
                          Length : 0020
                        DeviceId : 0018
                  Auxiliary Data : 0000
                        Reserved : 0000000000000000
                   Start Address : 0000000040000000
                   Memory Length : 0000000000100000

                   Subtable Type : 21
                           Flags : 07
                          Length : 0020
                        DeviceId : 0020
                  Auxiliary Data : 0000
                        Reserved : 0000000000000000
                   Start Address : 0000000080000000
                   Memory Length : 0000000000200000

                   Subtable Type : 21
                           Flags : 07
                          Length : 0020
                        DeviceId : 0020
                  Auxiliary Data : 0000
                        Reserved : 0000000000000000
                   Start Address : FFFFFFFFFFF00000
                   Memory Length : 0000000000100000
