//! Tells dependents where LibTorch is, so that each binary can find it when it runs.
//!
//! A dependent's build script reads `DEP_LM_LIBTORCH_LIB` and passes it on as an rpath.

fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where LibTorch is");
    println!("cargo:libtorch_lib={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rerun-if-changed=build.rs");
}
