//! Embeds the files of `web/dist` in the server. Only the build script uses it.

use std::{
    error::Error,
    fs,
    hash::{DefaultHasher, Hasher},
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};

/// The files of the page. Without them the server has none.
const FILES: &str = "web/dist";

/// Writes `page.rs` to `out`, and beside it the files that it includes, plain and compressed. It names them without
/// their directory, so that it stays right when the package, or cargo's target directory, is moved.
///
/// # Errors
/// A file cannot be read, or has no type that is known here.
pub fn embed(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/web/embed.rs");
    println!("cargo::rerun-if-changed={FILES}");
    // Cargo runs a build script in the directory of its package.
    let root = Path::new(FILES);
    let mut files = Vec::new();
    if root.is_dir() {
        find(root, &mut files)?;
    }
    files.sort();
    let mut table = String::from("/// The files of the page.\nstatic ASSETS: &[Asset] = &[\n");
    for (number, path) in files.iter().enumerate() {
        let content = fs::read(path)?;
        let name =
            path.strip_prefix(root)?.to_str().ok_or("a file of the page has a name that is not text")?;
        let kind = content_type(name).ok_or_else(|| format!("{FILES}/{name}: its type is unknown"))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&content);
        let tag = format!("\"{:016x}\"", hasher.finish());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&content)?;
        let compressed = encoder.finish()?;
        let plain = format!("page-{number}");
        let gzip = if compressed.len() < content.len() {
            fs::write(out.join(format!("{plain}.gz")), compressed)?;
            format!("Some(include_bytes!(\"{plain}.gz\"))")
        } else {
            "None".into()
        };
        fs::write(out.join(&plain), content)?;
        table += &format!(
            "    Asset {{ path: {:?}, content_type: {kind:?}, tag: {tag:?}, plain: include_bytes!({plain:?}), gzip: {gzip} }},\n",
            format!("/{name}"),
        );
    }
    table += "];\n";
    Ok(fs::write(out.join("page.rs"), table)?)
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}
