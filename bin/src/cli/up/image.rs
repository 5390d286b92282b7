//! The demo's image, made from this very program and the libraries that it has loaded: no registry, no build.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::tar::Tar;
use crate::cli::error::{CliError, Outcome};

/// The image's name.
pub(crate) const IMAGE: &str = "shoal-demo:latest";
/// Where the program is in the image.
pub(crate) const PROGRAM: &str = "/shoal";
/// The label with which an image that is there already is recognised.
pub(crate) const DIGEST_LABEL: &str = "shoal.demo.digest";
const FILE_BYTES_MAX: u64 = 1 << 30;

/// An image to import.
pub(crate) struct Image {
    /// Its files.
    pub(crate) tar: Vec<u8>,
    /// Folders of libraries.
    pub(crate) library_path: String,
    /// Tells equal images from others; not a matter of security.
    pub(crate) digest: String,
}

/// Pack this program and what it needs.
pub(crate) fn pack() -> Outcome<Image> {
    let libraries = libraries();
    let mut folders = BTreeSet::from([PathBuf::from("/tmp")]);
    for library in &libraries {
        folders.extend(library.ancestors().skip(1).filter(|p| p.parent().is_some()).map(Path::to_owned));
    }
    let mut tar = Tar::default();
    for folder in &folders {
        let mode = if folder == Path::new("/tmp") { 0o1777 } else { 0o755 };
        tar.folder(inside(folder)?, mode).map_err(CliError::failed)?;
    }
    tar.file(PROGRAM.trim_start_matches('/'), 0o755, &read(Path::new("/proc/self/exe"))?)
        .map_err(CliError::failed)?;
    for library in &libraries {
        tar.file(inside(library)?, 0o755, &read(library)?).map_err(CliError::failed)?;
    }
    let tar = tar.finish();
    let paths: BTreeSet<String> =
        libraries.iter().filter_map(|l| Some(l.parent()?.display().to_string())).collect();
    let library_path = paths.into_iter().collect::<Vec<_>>().join(":");
    Ok(Image { digest: format!("{:016x}", fnv(&tar)), tar, library_path })
}

/// Everything that the dynamic loader has loaded into this process, itself included, by the paths under which a
/// process of the same program will look for them. A static program has none.
fn libraries() -> Vec<PathBuf> {
    unsafe extern "C" fn each(
        info: *mut libc::dl_phdr_info,
        _: usize,
        data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid info, and the data that was given below, which nobody else holds meanwhile.
        let (info, found) = unsafe { (&*info, &mut *data.cast::<Vec<PathBuf>>()) };
        if !info.dlpi_name.is_null() {
            // SAFETY: a name of the loader is a C string that lives as long as its library.
            let name = unsafe { CStr::from_ptr(info.dlpi_name) };
            let name = name.to_string_lossy();
            // The program itself has no name, the kernel's page of calls no path.
            if name.starts_with('/') {
                found.push(PathBuf::from(name.as_ref()));
            }
        }
        0
    }
    let mut found: Vec<PathBuf> = Vec::new();
    // SAFETY: `each` has the signature that is wanted and does not unwind; `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(each), (&raw mut found).cast()) };
    found.sort();
    found.dedup();
    found
}

fn inside(path: &Path) -> Outcome<&str> {
    let text =
        path.to_str().ok_or_else(|| CliError::failed(format!("the path {} is no text", path.display())))?;
    Ok(text.trim_start_matches('/'))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let failed = |e| CliError::Failed(format!("cannot read {} for the demo image: {e}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_c_library_are_among_the_libraries() {
        let libraries = libraries();
        let has = |part: &str| libraries.iter().any(|l| l.display().to_string().contains(part));
        // A static test binary would have none at all.
        assert!(libraries.is_empty() || (has("libc") && has("ld-")), "{libraries:?}");
        assert!(libraries.iter().all(|library| library.is_file()), "{libraries:?}");
    }

    #[test]
    fn packing_twice_gives_the_same_image() {
        let (one, two) = (pack().expect("packs"), pack().expect("packs"));
        assert_eq!(one.digest, two.digest);
        assert!(one.tar == two.tar);
    }
}
