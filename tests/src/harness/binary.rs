//! Finds the `drystone` binary, building it if there is none or it is older than its sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use super::HarnessError;

/// The root of the workspace this was built from.
#[must_use]
pub fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// `target/PROFILE` that the running test came from.
fn profile_dir() -> Result<PathBuf, HarnessError> {
    let executable = std::env::current_exe().map_err(HarnessError::system("path of the running test"))?;
    let missing =
        || HarnessError::File { path: executable.clone(), problem: "not below a target directory".to_owned() };
    let deps = executable.ancestors().find(|path| path.ends_with("deps")).ok_or_else(missing)?;
    deps.parent().map(Path::to_owned).ok_or_else(missing)
}

/// The target directory of the running test.
///
/// # Errors
/// The test does not run from a target directory.
pub fn target_dir() -> Result<PathBuf, HarnessError> {
    let profile = profile_dir()?;
    Ok(profile.parent().unwrap_or(&profile).to_owned())
}

/// The binary to test: `DRYSTONE_BIN` as it is, else the one of this target directory and profile, built anew if one
/// of the sources it was made from has changed. Where nothing has changed that costs a look at a few hundred files.
///
/// # Errors
/// It cannot be built or found.
pub fn drystone() -> Result<PathBuf, HarnessError> {
    if let Some(path) = std::env::var_os("DRYSTONE_BIN").map(PathBuf::from) {
        let problem = "DRYSTONE_BIN names no file".to_owned();
        return if path.is_file() { Ok(path) } else { Err(HarnessError::File { path, problem }) };
    }
    let profile = profile_dir()?;
    let binary = profile.join("drystone");
    if !is_fresh(&binary) {
        // With the features of the whole workspace, as `cargo test --workspace` builds it: no dependency twice.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(workspace()).args(["build", "--workspace", "--bin", "drystone", "--profile"]);
        cargo.arg(profile_name(&profile)).env("CARGO_TARGET_DIR", target_dir()?);
        super::run(&mut cargo)?;
    }
    let problem = "cargo built no such binary".to_owned();
    if binary.is_file() { Ok(binary) } else { Err(HarnessError::File { path: binary, problem }) }
}

fn profile_name(profile: &Path) -> String {
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// Whether the binary exists and is newer than every file cargo says it was made from, all being of this workspace.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let (Some(built), Ok(inputs)) = (modified(binary), fs::read_to_string(binary.with_extension("d"))) else {
        return false;
    };
    let inputs = inputs.split_once(':').map_or("", |(_, inputs)| inputs);
    // Blanks in paths are escaped; such a workspace is merely asked of cargo each time.
    let mut inputs = inputs.split_whitespace().map(Path::new).peekable();
    let is_older = |path: &Path| modified(path).is_some_and(|changed: SystemTime| changed <= built);
    let ours = workspace();
    inputs.peek().is_some() && inputs.all(|path| path.starts_with(&ours) && is_older(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_older_than_a_source_or_of_another_workspace_is_stale() {
        let home = tempfile::tempdir().unwrap();
        let binary = home.path().join("drystone");
        assert!(!is_fresh(&binary), "no binary");
        fs::write(&binary, "").unwrap();
        assert!(!is_fresh(&binary), "no list of sources");
        let ours = workspace().join("tests/src/lib.rs");
        fs::write(home.path().join("drystone.d"), format!("{}: {}\n", binary.display(), ours.display())).unwrap();
        assert!(is_fresh(&binary));
        let file = fs::File::options().write(true).open(&binary).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!is_fresh(&binary), "older than its source");
        file.set_modified(SystemTime::now()).unwrap();
        let foreign = home.path().join("foreign.rs");
        fs::write(&foreign, "").unwrap();
        fs::write(home.path().join("drystone.d"), format!("{}: {}\n", binary.display(), foreign.display())).unwrap();
        assert!(!is_fresh(&binary), "made from another workspace");
    }
}
