//! Helpers of this test tier.
