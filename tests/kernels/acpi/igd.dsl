// DMAR for host igd: QEMU's one unit for everything, and three RMRRs.
// The raised OEM revision makes the kernel take this table for QEMU's own.
                       Signature : "DMAR"
                    Table Length : 00000000
                        Revision : 01
                        Checksum : 00
                          Oem ID : "BOCHS "
                    Oem Table ID : "BXPC    "
                    Oem Revision : 00000002
                 Asl Compiler ID : "BXPC"
           Asl Compiler Revision : 00000001
              Host Address Width : 2F
                           Flags : 01
                        Reserved : 00 00 00 00 00 00 00 00 00 00

                   Subtable Type : 0000
                          Length : 0018
                           Flags : 01
                        Reserved : 00
              PCI Segment Number : 0000
           Register Base Address : 00000000FED90000
               Device Scope Type : 03
                    Entry Length : 08
                        Reserved : 0000
                  Enumeration ID : 00
                  PCI Bus Number : FF
                        PCI Path : 00,00

                   Subtable Type : 0001
                          Length : 0020
                        Reserved : 0000
              PCI Segment Number : 0000
                    Base Address : 00000000BF800000
             End Address (limit) : 00000000CF9FFFFF
               Device Scope Type : 01
                    Entry Length : 08
                        Reserved : 0000
                  Enumeration ID : 00
                  PCI Bus Number : 00
                        PCI Path : 02,00

                   Subtable Type : 0001
                          Length : 0028
                        Reserved : 0000
              PCI Segment Number : 0000
                    Base Address : 00000000BE8D1000
             End Address (limit) : 00000000BE8DFFFF
               Device Scope Type : 01
                    Entry Length : 08
                        Reserved : 0000
                  Enumeration ID : 00
                  PCI Bus Number : 00
                        PCI Path : 1A,00
               Device Scope Type : 01
                    Entry Length : 08
                        Reserved : 0000
                  Enumeration ID : 00
                  PCI Bus Number : 00
                        PCI Path : 1D,00

                   Subtable Type : 0001
                          Length : 0020
                        Reserved : 0000
              PCI Segment Number : 0000
                    Base Address : 00000000B0000000
             End Address (limit) : 00000000B00FFFFF
               Device Scope Type : 01
                    Entry Length : 08
                        Reserved : 0000
                  Enumeration ID : 00
                  PCI Bus Number : 00
                        PCI Path : 04,00
