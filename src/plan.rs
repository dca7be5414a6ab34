// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Plans of injected failures: which passage of a [`Point`] fails. No state: the same plan says the same
//! of the same passage, whatever else happened. Counting passages is `inject`'s business.

use std::fmt;
use std::str::FromStr;

use crate::errno::Errno;
use crate::inject::Injected;

/// Where a failure can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// A MAP_DMA of memory that no rule is against, before anything is pinned or allocated for it.
    Map,
    /// A call of [`Memory::pin`](crate::Memory::pin).
    Pin,
    /// A place where a kernel allocates for a request and answers ENOMEM if it cannot:
    /// [`Allocation`](crate::Allocation) lists them.
    Allocation,
}

impl Point {
    /// All points.
    pub const ALL: [Self; 3] = [Self::Map, Self::Pin, Self::Allocation];

    fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Pin => "pin",
            Self::Allocation => "allocation",
        }
    }

    fn default_errno(self) -> Errno {
        match self {
            Self::Map | Self::Allocation => Errno::ENOMEM,
            Self::Pin => Errno::EFAULT,
        }
    }

    fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What shall fail, for [`Vfio::inject`](crate::Vfio::inject).
///
/// As text it is a list of items with commas between them; an empty one lets nothing fail.
///
/// | item | what fails |
/// |---|---|
/// | `map:3` | the third passage of the point, with its usual errno: ENOMEM for `map` and `allocation`, EFAULT for `pin` |
/// | `map:3=ENOSPC` | the same with another errno, for `map` and `pin` |
/// | `seed:42/50` | each passage of any point with a chance of one in 50, decided by the seed 42 |
/// | `seed:42/50@map+pin` | the same at these points only |
///
/// ```
/// use vfio_type1::{FaultPlan, Point};
///
/// let plan: FaultPlan = "map:3=ENOSPC,pin:10,seed:42/50@allocation".parse()?;
/// assert_eq!(plan.to_string(), "map:3=ENOSPC,pin:10,seed:42/50@allocation");
/// assert_eq!("map:3".parse(), FaultPlan::default().fail(Point::Map, 3, None));
/// # Ok::<(), vfio_type1::FaultPlanError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Nth {
        point: Point,
        nth: u64,
        errno: Errno,
    },
    /// The points stand in the order of [`Point::ALL`].
    Seeded {
        seed: u64,
        one_in: u64,
        points: Vec<Point>,
    },
}

/// Why a plan cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultPlanError {
    /// An item of the text is none of those above.
    #[error(
        "\"{item}\" is no injected failure; write map:N, pin:N or allocation:N, with =ERRNO behind \
         map and pin if you like, or seed:SEED/ONE-IN, with @POINT+POINT behind it"
    )]
    UnknownItem {
        /// The item.
        item: String,
    },
    /// Passages are counted from 1, and a chance of one in 0 is none.
    #[error("{what} is 0; count from 1")]
    Zero {
        /// What was counted.
        what: &'static str,
    },
    /// The errno has no name here.
    #[error("unknown errno \"{name}\"; write one such as ENOMEM, ENOSPC, EINVAL or EFAULT")]
    UnknownErrno {
        /// The name given.
        name: String,
    },
    /// A failed allocation has one errno only.
    #[error("an allocation fails with ENOMEM, not with {errno}; leave the errno out")]
    AllocationErrno {
        /// The errno given.
        errno: Errno,
    },
}

impl FaultPlan {
    /// Lets the `nth` passage of a point fail, counted from 1, with its usual errno or with this one.
    pub fn fail(
        mut self,
        point: Point,
        nth: u64,
        errno: Option<Errno>,
    ) -> Result<Self, FaultPlanError> {
        let errno = errno.unwrap_or(point.default_errno());
        if nth == 0 {
            return Err(FaultPlanError::Zero { what: "the number of the passage" });
        }
        if point == Point::Allocation && errno != Errno::ENOMEM {
            return Err(FaultPlanError::AllocationErrno { errno });
        }
        self.items.push(Item::Nth { point, nth, errno });
        Ok(self)
    }

    /// Lets each passage of these points fail with a chance of one in `one_in`, decided by `seed`.
    pub fn seeded(
        mut self,
        seed: u64,
        one_in: u64,
        points: &[Point],
    ) -> Result<Self, FaultPlanError> {
        if one_in == 0 {
            return Err(FaultPlanError::Zero { what: "the chance" });
        }
        let points = Point::ALL.into_iter().filter(|point| points.contains(point)).collect();
        self.items.push(Item::Seeded { seed, one_in, points });
        Ok(self)
    }

    /// Whether nothing shall fail.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What the `nth` passage of a point fails with, if it shall; the first item that says so decides.
    pub(crate) fn errno_at(&self, point: Point, nth: u64) -> Option<Errno> {
        self.items.iter().find_map(|item| match item {
            Item::Nth { point: at, nth: wanted, errno } => {
                (*at == point && *wanted == nth).then_some(*errno)
            }
            Item::Seeded { seed, one_in, points } => {
                let fails =
                    points.contains(&point) && draw(*seed, point, nth).is_multiple_of(*one_in);
                fails.then_some(point.default_errno())
            }
        })
    }
}

/// A number that looks random, the same for the same arguments: splitmix64 (Steele, Lea and Flood,
/// 2014) of the passage, begun anew for each seed and point.
fn draw(seed: u64, point: Point, nth: u64) -> u64 {
    let stream = splitmix64(seed.wrapping_add(point as u64));
    splitmix64(stream.wrapping_add(nth))
}

fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl FromStr for FaultPlan {
    type Err = FaultPlanError;

    fn from_str(text: &str) -> Result<Self, FaultPlanError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        text.split(',').map(str::trim).try_fold(Self::default(), Self::with_item)
    }
}

/// The plan that lets the same passages fail.
impl<'a> FromIterator<&'a Injected> for FaultPlan {
    fn from_iter<I: IntoIterator<Item = &'a Injected>>(injected: I) -> Self {
        let item =
            |&Injected { point, nth, errno, .. }: &'a Injected| Item::Nth { point, nth, errno };
        Self { items: injected.into_iter().map(item).collect() }
    }
}

impl FaultPlan {
    fn with_item(self, item: &str) -> Result<Self, FaultPlanError> {
        let unknown = || FaultPlanError::UnknownItem { item: item.to_owned() };
        let (head, rest) = item.split_once(':').ok_or_else(unknown)?;
        if head == "seed" {
            let (chance, points) = rest.split_once('@').map_or((rest, None), |(c, p)| (c, Some(p)));
            let (seed, one_in) = chance.split_once('/').ok_or_else(unknown)?;
            let (seed, one_in) = number(seed).zip(number(one_in)).ok_or_else(unknown)?;
            let points = match points {
                Some(names) => names.split('+').map(Point::find).collect::<Option<Vec<_>>>(),
                None => Some(Point::ALL.to_vec()),
            };
            return self.seeded(seed, one_in, &points.ok_or_else(unknown)?);
        }
        let point = Point::find(head).ok_or_else(unknown)?;
        let (nth, errno) = rest.split_once('=').map_or((rest, None), |(n, e)| (n, Some(e)));
        let errno = errno.map(errno_named).transpose()?;
        self.fail(point, number(nth).ok_or_else(unknown)?, errno)
    }
}

/// Digits only: what is printed must be what was read.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn errno_named(name: &str) -> Result<Errno, FaultPlanError> {
    Errno::from_name(name).ok_or_else(|| FaultPlanError::UnknownErrno { name: name.to_owned() })
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            if index != 0 {
                f.write_str(",")?;
            }
            fmt::Display::fmt(item, f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nth { point, nth, errno } => write_nth(*point, *nth, *errno, f),
            Self::Seeded { seed, one_in, points } => {
                write!(f, "seed:{seed}/{one_in}")?;
                if points.len() == Point::ALL.len() {
                    return Ok(());
                }
                let names: Vec<&str> = points.iter().map(|point| point.name()).collect();
                write!(f, "@{}", names.join("+"))
            }
        }
    }
}

/// `map:3`, and the errno unless it is the usual one.
pub(crate) fn write_nth(
    point: Point,
    nth: u64,
    errno: Errno,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(f, "{point}:{nth}")?;
    if errno != point.default_errno() {
        write!(f, "={errno}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FaultPlan, FaultPlanError> {
        text.parse()
    }

    #[test]
    fn a_plan_is_printed_as_it_is_read() {
        for text in [
            "",
            "map:3",
            "map:3=ENOSPC,pin:10,allocation:2",
            "pin:18446744073709551615=EOPNOTSUPP",
            "seed:42/50",
            "seed:0/1@pin,map:1,seed:1/2@map+allocation",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse(" map:3=ENOMEM , pin:1 ").unwrap().to_string(), "map:3,pin:1");
        assert_eq!(parse("seed:1/2@pin+map").unwrap().to_string(), "seed:1/2@map+pin");
    }

    #[test]
    fn bad_plans_say_what_is_allowed() {
        for (text, expected) in [
            ("map", "\"map\" is no injected failure; write map:N, pin:N"),
            ("map:", "\"map:\" is no injected failure"),
            ("map:+1", "\"map:+1\" is no injected failure"),
            ("map:1,", "\"\" is no injected failure"),
            ("unmap:1", "\"unmap:1\" is no injected failure"),
            ("seed:1", "\"seed:1\" is no injected failure"),
            ("seed:1/2@", "\"seed:1/2@\" is no injected failure"),
            ("map:99999999999999999999", "is no injected failure"),
            ("map:0", "the number of the passage is 0; count from 1"),
            ("seed:1/0", "the chance is 0; count from 1"),
            ("map:1=EFOO", "unknown errno \"EFOO\"; write one such as"),
            ("allocation:1=EINVAL", "an allocation fails with ENOMEM, not with EINVAL"),
        ] {
            let problem = parse(text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{problem}\nexpected {expected}");
            assert_eq!(problem.lines().count(), 1, "{problem}");
        }
    }

    #[test]
    fn the_nth_passage_fails_and_no_other() {
        let plan = parse("map:2=ENOSPC,pin:3").unwrap();
        let failing = |point| (0..9).filter_map(move |nth| Some((nth, plan.errno_at(point, nth)?)));
        let failing = |point| failing.clone()(point).collect::<Vec<_>>();
        assert_eq!(failing(Point::Map), [(2, Errno::ENOSPC)]);
        assert_eq!(failing(Point::Pin), [(3, Errno::EFAULT)]);
        assert_eq!(failing(Point::Allocation), []);
    }

    #[test]
    fn a_seed_decides_each_point_by_itself() {
        let failing = |text: &str, point| -> Vec<u64> {
            let plan = parse(text).unwrap();
            (1..=10_000).filter(|nth| plan.errno_at(point, *nth).is_some()).collect()
        };
        let map = failing("seed:42/50", Point::Map);
        assert!((150..250).contains(&map.len()), "{} of 10000", map.len());
        // Replays of tomorrow rely on these.
        assert_eq!(map[..3], [52, 178, 192]);
        assert_ne!(map, failing("seed:43/50", Point::Map));
        assert_ne!(map, failing("seed:42/50", Point::Pin));
        assert_eq!(map, failing("seed:42/50@map", Point::Map));
        assert_eq!(failing("seed:42/50@map", Point::Pin), []);
        assert_eq!(failing("seed:7/1", Point::Pin).len(), 10_000);
    }

    #[test]
    fn splitmix64_is_the_published_one() {
        // The first output for the seed 1234567 in the reference implementation's tests.
        assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
    }
}
