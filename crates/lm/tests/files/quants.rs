//! Stored blocks become the same bits as in transformers, and are rounded once where another number
//! format is wanted.

use lm::files::ModelFiles;
use lm::weights::Weights;
use tch::Kind;

use super::{fixture, tensor};

/// Holds one GGUF file against the values that transformers reads from it.
fn check(name: &str) {
    let files = ModelFiles::open(&fixture(&format!("quants/{name}.gguf"))).unwrap();
    let found = Weights::open(&files).unwrap();
    let expected = Weights::open_file(&fixture(&format!("quants/{name}.safetensors"))).unwrap();
    assert_eq!(found.names().collect::<Vec<_>>(), expected.names().collect::<Vec<_>>());
    for tensor_name in expected.names() {
        let (a, b) =
            (tensor(&found, tensor_name, Kind::Float), tensor(&expected, tensor_name, Kind::Float));
        assert_eq!(a.size(), b.size());
        let same = a.view_dtype(Kind::Int).eq_tensor(&b.view_dtype(Kind::Int)).all();
        assert!(bool::try_from(same).unwrap(), "{name}: {tensor_name} has other bits");
        for kind in [Kind::BFloat16, Kind::Half] {
            assert!(tensor(&found, tensor_name, kind).equal(&b.to_kind(kind)), "{name}: {kind:?}");
        }
    }
}

#[test]
fn f32_is_read_as_it_is() {
    check("f32");
}

#[test]
fn f16_is_read_as_it_is() {
    check("f16");
}

#[test]
fn bf16_is_read_as_it_is() {
    check("bf16");
}

#[test]
fn q4_0_blocks_become_the_same_bits() {
    check("q4_0");
}

#[test]
fn q4_1_blocks_become_the_same_bits() {
    check("q4_1");
}

#[test]
fn q5_0_blocks_become_the_same_bits() {
    check("q5_0");
}

#[test]
fn q8_0_blocks_become_the_same_bits() {
    check("q8_0");
}

#[test]
fn q4_k_blocks_become_the_same_bits() {
    check("q4_k");
}

#[test]
fn q5_k_blocks_become_the_same_bits() {
    check("q5_k");
}

#[test]
fn q6_k_blocks_become_the_same_bits() {
    check("q6_k");
}
