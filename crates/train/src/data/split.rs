//! Which split an example belongs to.
//!
//! A hash of the example's content and the seed places it on the line from 0 to 1: the test split
//! takes its share from the start of the line and the validation split from its end. So an example
//! keeps its place when others are added or the order changes, copies never sit on both sides of a
//! border, and one share can change without touching the other split.

use api::fault::Fault;
use api::run_spec::{Data, HeldOut};
use sha2::{Digest, Sha256};

use super::sample::ContentHash;

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    Train,
    Validation,
    Test,
}

/// The shares that are taken out of the training files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    seed: u64,
    validation: f64,
    test: f64,
}

impl Shares {
    pub(super) fn new(data: &Data, seed: u64) -> Result<Self, Fault> {
        let validation = share(&data.validation, "validation")?;
        let test = share(&data.test, "test")?;
        if validation + test >= 1.0 {
            return Err(Fault {
                field: Some("spec.data".to_owned()),
                message: format!(
                    "validation ({validation}) and test ({test}) leave nothing to train on"
                ),
                hint: Some("hold out less: 0.1 is a usual share for each".to_owned()),
                ..Fault::default()
            });
        }
        Ok(Self { seed, validation, test })
    }

    /// The split of an example from the training files.
    pub(super) fn split(&self, content: &ContentHash) -> Split {
        let mut hasher = Sha256::new();
        hasher.update(self.seed.to_le_bytes());
        hasher.update(content);
        let digest = hasher.finalize();
        let bits = digest.iter().take(8).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        let place = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        if place < self.test {
            Split::Test
        } else if place >= 1.0 - self.validation {
            Split::Validation
        } else {
            Split::Train
        }
    }
}

fn share(held_out: &HeldOut, name: &str) -> Result<f64, Fault> {
    match held_out {
        HeldOut::None | HeldOut::Files(_) => Ok(0.0),
        HeldOut::Fraction(share) if (0.0..1.0).contains(share) => Ok(*share),
        HeldOut::Fraction(share) => Err(Fault {
            field: Some(format!("spec.data.{name}.fraction")),
            message: format!("{share} is not a share from 0 to below 1"),
            hint: Some("0.1 holds out one example in ten".to_owned()),
            ..Fault::default()
        }),
    }
}
