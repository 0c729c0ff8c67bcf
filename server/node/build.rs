//! Builds the page (web crate to wasm), compresses it with the static files, and writes the table that is embedded.
//!
//! `FUTAGO_WEB=skip` embeds a page that says so and builds no wasm (lints, editors); `FUTAGO_WEB_PROFILE=wasm-dev` builds
//! it quickly and large.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

type Fault = Box<dyn std::error::Error>;

/// What replaces this comment in `static/index.html` starts the page.
const APP_MARK: &str = "<!-- app -->";
/// Of cargo's own build: they would bend the nested one to the host's target or deadlock it on the outer lock.
const FOREIGN_VARIABLES: [&str; 8] = [
    "CARGO_ENCODED_RUSTFLAGS",
    "RUSTFLAGS",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_TARGET_DIR",
];

struct Asset {
    path: String,
    bytes: Vec<u8>,
    immutable: bool,
}

fn main() -> Result<(), Fault> {
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for path in ["web", "server/wire", "static", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=FUTAGO_WEB");
    println!("cargo::rerun-if-env-changed=FUTAGO_WEB_PROFILE");
    let profile = env::var("FUTAGO_WEB_PROFILE").unwrap_or_else(|_| "wasm-release".into());
    let skip = env::var("FUTAGO_WEB").is_ok_and(|value| value == "skip");
    let mut assets = Vec::new();
    if skip {
        let bytes = b"<!doctype html><title>futago</title><p>Built with FUTAGO_WEB=skip.".into();
        assets.push(Asset { path: "/index.html".into(), bytes, immutable: false });
    } else {
        let app = add_app(&root, &out, &profile, &mut assets)?;
        add_static(&root.join("static"), "", &mut assets)?;
        let index = assets.iter_mut().find(|asset| asset.path == "/index.html");
        let index = index.ok_or("static/index.html is missing")?;
        let page = String::from_utf8(index.bytes.clone())?;
        if !page.contains(APP_MARK) {
            return Err(format!("static/index.html lacks {APP_MARK} in its head").into());
        }
        index.bytes = page.replace(APP_MARK, &app).into_bytes();
    }
    assets.sort_by(|a, b| a.path.cmp(&b.path));
    write_table(&out, &assets, profile != "wasm-dev")
}

/// Builds the wasm and its JavaScript; returns the tags that load them.
fn add_app(root: &Path, out: &Path, profile: &str, assets: &mut Vec<Asset>) -> Result<String, Fault> {
    let wasm = build_wasm(root, profile)?;
    let folder = out.join("bindgen");
    let _ = fs::remove_dir_all(&folder);
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(&wasm)
        .out_name("app")
        .web(true)?
        .typescript(false)
        .remove_name_section(profile != "wasm-dev")
        .remove_producers_section(true)
        .generate(&folder)?;
    let wasm = fs::read(folder.join("app_bg.wasm"))?;
    let script = fs::read(folder.join("app.js"))?;
    let wasm_name = format!("/pkg/app-{:016x}.wasm", fnv(&wasm));
    let script_name = format!("/pkg/app-{:016x}.js", fnv(&script));
    let boot =
        format!("import init from \"{script_name}\";\nawait init({{ module_or_path: \"{wasm_name}\" }});\n");
    let boot_name = format!("/pkg/boot-{:016x}.js", fnv(boot.as_bytes()));
    let app = format!(
        "<link rel=\"modulepreload\" href=\"{script_name}\"><link rel=\"preload\" href=\"{wasm_name}\" as=\"fetch\" \
         type=\"application/wasm\" crossorigin><script type=\"module\" src=\"{boot_name}\"></script>"
    );
    add_snippets(&folder.join("snippets"), "/pkg/snippets", assets)?;
    for (path, bytes) in [(wasm_name, wasm), (script_name, script), (boot_name, boot.into_bytes())] {
        assets.push(Asset { path, bytes, immutable: true });
    }
    Ok(app)
}

/// One wasm build for the dev, test and release builds of the program, in a target folder of its own.
fn build_wasm(root: &Path, profile: &str) -> Result<PathBuf, Fault> {
    let target = root.join("target/wasm");
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo.current_dir(root).args(["build", "--package=web", "--target=wasm32-unknown-unknown", "--locked"]);
    cargo.arg(format!("--profile={profile}")).arg("--target-dir").arg(&target);
    for variable in FOREIGN_VARIABLES {
        cargo.env_remove(variable);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err("the page does not build (errors above)".into());
    }
    Ok(target.join(format!("wasm32-unknown-unknown/{profile}/web.wasm")))
}

fn add_snippets(folder: &Path, prefix: &str, assets: &mut Vec<Asset>) -> Result<(), Fault> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            add_snippets(&entry.path(), &path, assets)?;
        } else {
            assets.push(Asset { path, bytes: fs::read(entry.path())?, immutable: false });
        }
    }
    Ok(())
}

/// Everything in `static/` but its pictures for the README.
fn add_static(folder: &Path, prefix: &str, assets: &mut Vec<Asset>) -> Result<(), Fault> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}/{name}");
        if name.starts_with('.') || path == "/readme" || path == "/pkg" {
            continue;
        }
        if entry.path().is_dir() {
            add_static(&entry.path(), &path, assets)?;
        } else {
            assets.push(Asset { path, bytes: fs::read(entry.path())?, immutable: false });
        }
    }
    Ok(())
}

/// Writes each file plain, gzipped and brotli-compressed, and `assets.rs` that includes them.
fn write_table(out: &Path, assets: &[Asset], small: bool) -> Result<(), Fault> {
    let folder = out.join("assets");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let mut table = String::from("/// Every embedded file, by path.\npub static ASSETS: &[Asset] = &[\n");
    for (number, asset) in assets.iter().enumerate() {
        let plain = folder.join(number.to_string());
        let gzip = folder.join(format!("{number}.gz"));
        let brotli = folder.join(format!("{number}.br"));
        fs::write(&plain, &asset.bytes)?;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&asset.bytes)?;
        fs::write(&gzip, packed.finish()?)?;
        let mut packed = Vec::new();
        let quality = if small { 11 } else { 5 };
        brotli::CompressorWriter::new(&mut packed, 64 * 1024, quality, 22).write_all(&asset.bytes)?;
        fs::write(&brotli, packed)?;
        writeln!(
            table,
            "    Asset {{ path: {:?}, etag: \"\\\"{:016x}\\\"\", immutable: {}, plain: include_bytes!({:?}), gzip: \
             include_bytes!({:?}), brotli: include_bytes!({:?}) }},",
            asset.path,
            fnv(&asset.bytes),
            asset.immutable,
            plain,
            gzip,
            brotli
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("assets.rs"), table)?;
    Ok(())
}

/// FNV-1a: names a content; nothing relies on it against an adversary.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
