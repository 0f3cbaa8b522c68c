//! Compiles the CPU kernels, and tells dependents where LibTorch is, so that each binary can find it when
//! it runs: a dependent's build script reads `DEP_LM_LIBTORCH_LIB` and passes it on as an rpath.

fn main() {
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where LibTorch is");
    println!("cargo:libtorch_lib={lib}");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=kernels");
    compile_kernels();
    link_openmp(std::path::Path::new(&lib));
}

/// LibTorch's own OpenMP runtime where it ships one, so that both use the same threads.
fn link_openmp(lib: &std::path::Path) {
    println!("cargo:rustc-link-search=native={}", lib.display());
    if lib.join("libgomp.so.1").exists() {
        println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    } else {
        println!("cargo:rustc-link-lib=dylib=gomp");
    }
}

fn compile_kernels() {
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let avx512 = [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512vl",
        "-mavx512dq",
        "-mfma",
        "-mprefer-vector-width=512",
    ];
    let variants: &[(&str, &[&str])] = if x86 {
        &[("base", &[]), ("avx2", &["-mavx2", "-mfma"]), ("avx512", &avx512)]
    } else {
        &[("base", &[])]
    };
    for (name, flags) in variants {
        let mut build = build();
        build.define("VARIANT", *name).file("kernels/kernels.cpp").file("kernels/serve.cpp");
        for flag in *flags {
            build.flag(flag);
        }
        build.compile(&format!("anneal_kernels_{name}"));
        // Every rounding counts: values have the bits that bitsandbytes gives them.
        let mut exact = self::build();
        exact.define("VARIANT", *name).file("kernels/nf4.cpp").flag("-ffp-contract=off");
        // GCC warns of its own header.
        exact.flag_if_supported("-Wno-maybe-uninitialized");
        for flag in *flags {
            exact.flag(flag);
        }
        exact.compile(&format!("anneal_nf4_{name}"));
    }
    build()
        .file("kernels/dispatch.cpp")
        .file("kernels/serve_dispatch.cpp")
        .compile("anneal_kernels");
}

fn build() -> cc::Build {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(3)
        .flag("-fopenmp")
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math");
    build
}
