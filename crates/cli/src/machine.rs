//! What this machine can do: as the trainer in a pod finds it out.

pub(crate) use trainer_image::machine::facts;
