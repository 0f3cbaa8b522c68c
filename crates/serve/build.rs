//! Lets these tests find LibTorch when they run.

fn main() {
    let lib = std::env::var("DEP_LM_LIBTORCH_LIB").expect("crate lm tells where LibTorch is");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rerun-if-changed=build.rs");
}
