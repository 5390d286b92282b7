//! This user's registry credentials, from Docker's `config.json`, for `--with-registry-auth`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::error::{CliError, Outcome};
use super::output::text;

/// Docker's key for its own registry.
const HUB: &str = "https://index.docker.io/v1/";
const FILE_BYTES_MAX: u64 = 4 << 20;

/// `X-Registry-Auth` for an image, if this user has credentials for its registry.
pub(crate) fn auth_for(image: &str) -> Outcome<Option<String>> {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker")));
    let Some(path) = folder.map(|folder| folder.join("config.json")) else { return Ok(None) };
    let config = match read(&path) {
        Ok(config) => config,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CliError::Failed(format!("cannot read {}: {error}", path.display()))),
    };
    let registry = registry_of(image);
    let found = match helper_for(&config, &registry) {
        Some(helper) => ask_helper(&helper, &registry)?,
        None => from_file(&config, &registry)?,
    };
    Ok(found.map(|auth| encode(auth.to_string().as_bytes())))
}

fn read(path: &std::path::Path) -> std::io::Result<Value> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    // The parser's words name a place in the file and never its text.
    serde_json::from_str(&text).map_err(std::io::Error::other)
}

/// The registry that an image reference names.
pub(crate) fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first.to_owned(),
        _ => HUB.to_owned(),
    }
}

fn helper_for(config: &Value, registry: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(registry));
    let name = own.or_else(|| config.get("credsStore")).and_then(Value::as_str)?;
    let fits = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    fits.then(|| format!("docker-credential-{name}"))
}

fn ask_helper(helper: &str, registry: &str) -> Outcome<Option<Value>> {
    let failed = |e: std::io::Error| CliError::Failed(format!("cannot ask {helper} for credentials: {e}"));
    let mut child = Command::new(helper)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(registry.as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Ok(None);
    }
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let (user, secret) = (text(&told, "/Username"), text(&told, "/Secret"));
    Ok(Some(match user {
        "<token>" => json!({"identitytoken": secret, "serveraddress": registry}),
        _ => json!({"username": user, "password": secret, "serveraddress": registry}),
    }))
}

fn from_file(config: &Value, registry: &str) -> Outcome<Option<Value>> {
    let auths = config.get("auths").and_then(Value::as_object);
    let bare = |key: &str| key.trim_start_matches("https://").trim_end_matches('/').to_owned();
    let entry = auths.and_then(|auths| auths.iter().find(|(key, _)| bare(key) == bare(registry)));
    let Some((_, entry)) = entry else { return Ok(None) };
    if let Some(token) = entry.get("identitytoken").and_then(Value::as_str) {
        return Ok(Some(json!({"identitytoken": token, "serveraddress": registry})));
    }
    let broken =
        || CliError::Failed(format!("the credentials for {registry} in Docker's config.json are malformed"));
    let pair = decode(text(entry, "/auth")).and_then(|b| String::from_utf8(b).ok()).ok_or_else(broken)?;
    let (user, password) = pair.split_once(':').ok_or_else(broken)?;
    Ok(Some(json!({"username": user, "password": password, "serveraddress": registry})))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base 64 with the URL alphabet and padding, as the API wants the header.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}

/// Base 64 with either alphabet.
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut word, mut bits, mut out) = (0u32, 0, Vec::new());
    for byte in text.trim_end_matches('=').bytes() {
        let byte = match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => other,
        };
        let digit = DIGITS.iter().position(|d| *d == byte)?;
        word = word << 6 | u32::try_from(digit).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(word >> bits & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_registry_is_the_first_part_that_looks_like_a_host() {
        for (image, registry) in [
            ("busybox", HUB),
            ("library/busybox:1", HUB),
            ("registry.example/team/app:1", "registry.example"),
            ("localhost/app", "localhost"),
            ("host:5000/app", "host:5000"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }

    #[test]
    fn credentials_are_found_whatever_form_the_key_has() {
        let config = json!({"auths": {"https://registry.example/": {"auth": "dXNlcjpwYTpzcw=="}}});
        let found = from_file(&config, "registry.example").expect("well-formed").expect("found");
        assert_eq!((text(&found, "/username"), text(&found, "/password")), ("user", "pa:ss"));
        assert_eq!(from_file(&config, "other.example").expect("fine"), None);
    }

    #[test]
    fn a_malformed_entry_is_named_without_its_content() {
        let config = json!({"auths": {"r.example": {"auth": "c2VjcmV0"}}});
        let error = from_file(&config, "r.example").expect_err("no colon").to_string();
        assert!(
            error.contains("r.example") && !error.contains("secret") && !error.contains("c2Vj"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn base_64_reads_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
