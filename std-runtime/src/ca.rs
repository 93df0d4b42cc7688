//! A small certificate authority in a folder, for people without a PKI of their own.
//!
//! ```text
//! DIR/ca.pem      the authority's certificate: every node gets a copy (--tls-ca)
//! DIR/ca.key      its key: stays here, and signs
//! DIR/NAME.pem    the certificate of the node NAME (--tls-cert)
//! DIR/NAME.key    its key (--tls-key)
//! ```
//!
//! Keys are ECDSA on P-256, readable by their owner only. Nothing is ever overwritten.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use replcore::stream::Name;
use x509_parser::time::ASN1Time;

use crate::tls::NAME_URI_PREFIX;

/// Days for which an authority's certificate is valid.
pub const CA_DAYS: u32 = 3650;
/// Days for which a node's certificate is valid, unless told otherwise.
pub const NODE_DAYS: u32 = 730;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate and its key, just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The certificate.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// Makes a new authority in `dir`, which is created if need be.
///
/// # Errors
/// One line; nothing was changed, above all nothing overwritten.
pub fn init(dir: &Path) -> Result<Made, String> {
    std::fs::create_dir_all(dir)
        .map_err(|error| format!("cannot create the folder {}: {error}", dir.display()))?;
    let made = Made { cert: dir.join("ca.pem"), key: dir.join("ca.key") };
    refuse_existing(&made)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "replcore authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_DAYS);
    let key = KeyPair::generate().map_err(|error| format!("cannot make a key: {error}"))?;
    let cert = params.self_signed(&key).map_err(|error| format!("cannot sign: {error}"))?;
    write(&made, &cert.pem(), &key.serialize_pem())?;
    Ok(made)
}

/// Makes a certificate and key for the node `name`, signed by the authority in `dir`.
///
/// `hosts` are names and addresses by which HTTP clients reach the node; between nodes they do not
/// matter. With none given, `localhost` and the loopback addresses are taken.
///
/// # Errors
/// One line; nothing was changed, above all nothing overwritten.
pub fn issue(dir: &Path, name: &Name, hosts: &[String], days: u32) -> Result<Made, String> {
    let stem = crate::config::folder_name(name);
    if stem == "ca" {
        return Err("the name \"ca\" is the authority's own; give the node another".into());
    }
    let made = Made { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) };
    refuse_existing(&made)?;
    let authority = authority(dir)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    params.subject_alt_names = alternatives(name, hosts)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, days);
    let key = KeyPair::generate().map_err(|error| format!("cannot make a key: {error}"))?;
    let cert =
        params.signed_by(&key, &authority).map_err(|error| format!("cannot sign: {error}"))?;
    write(&made, &cert.pem(), &key.serialize_pem())?;
    Ok(made)
}

fn authority(dir: &Path) -> Result<Issuer<'static, KeyPair>, String> {
    let read = |file: &str| {
        let path = dir.join(file);
        std::fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!(
                "there is no authority in {0}: make one with `replcore ca init {0}`",
                dir.display()
            ),
            _ => format!("cannot read {}: {error}", path.display()),
        })
    };
    let (cert, key) = (read("ca.pem")?, read("ca.key")?);
    let damaged = |error| format!("the authority in {} is damaged: {error}", dir.display());
    let key = KeyPair::from_pem(&key).map_err(damaged)?;
    Issuer::from_ca_cert_pem(&cert, key).map_err(damaged)
}

fn alternatives(name: &Name, hosts: &[String]) -> Result<Vec<SanType>, String> {
    let ia5 = |text: &str| {
        text.to_owned().try_into().map_err(|_| format!("{text:?} is not a host name (ASCII only)"))
    };
    let mut names = vec![SanType::URI(ia5(&format!("{NAME_URI_PREFIX}{name}"))?)];
    let defaults = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for host in if hosts.is_empty() { &defaults } else { hosts } {
        names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if is_host_name(host) => SanType::DnsName(ia5(host)?),
            Err(_) => return Err(format!("{host:?} is neither a host name nor an address")),
        });
    }
    Ok(names)
}

fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        let ends = label.starts_with('-') || label.ends_with('-');
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && label.len() <= 63 && !ends && letters
    };
    host.len() <= 253 && host.strip_prefix("*.").unwrap_or(host).split('.').all(label)
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = ASN1Time::now().to_datetime();
    // A device whose clock is a little behind may use it at once.
    params.not_before = now - DAY;
    params.not_after = now + DAY * days;
}

fn refuse_existing(made: &Made) -> Result<(), String> {
    for path in [&made.cert, &made.key] {
        if path.exists() {
            return Err(format!(
                "{} is there already and nothing was changed; move it away to make a new one",
                path.display()
            ));
        }
    }
    Ok(())
}

fn write(made: &Made, cert: &str, key: &str) -> Result<(), String> {
    write_new(&made.key, key, 0o600)?;
    write_new(&made.cert, cert, 0o644).inspect_err(|_| {
        // The key alone is of no use, and would stand in the way of the next attempt.
        let _ = std::fs::remove_file(&made.key);
    })
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TlsFiles;
    use crate::tls::Tls;
    use std::os::unix::fs::PermissionsExt;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn files(dir: &Path, made: &Made) -> TlsFiles {
        TlsFiles { ca: dir.join("ca.pem"), certificate: made.cert.clone(), key: made.key.clone() }
    }

    #[test]
    fn every_kind_of_name_goes_into_a_certificate_and_comes_out_again() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let longest = "n".repeat(63);
        for text in ["242", "till-7.shop-3", "shop-3/till:7", "A_b", "..", longest.as_str()] {
            let made = issue(dir.path(), &name(text), &[], NODE_DAYS).unwrap();
            let tls = Tls::load(files(dir.path(), &made)).unwrap();
            assert_eq!(tls.name(), name(text));
            let mode = std::fs::metadata(&made.key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the key is for its owner only");
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let made = init(dir.path()).unwrap();
        let before = std::fs::read(&made.key).unwrap();
        assert!(init(dir.path()).unwrap_err().contains("there already"));
        issue(dir.path(), &name("242"), &[], NODE_DAYS).unwrap();
        assert!(issue(dir.path(), &name("242"), &[], NODE_DAYS).unwrap_err().contains("242.pem"));
        assert_eq!(std::fs::read(&made.key).unwrap(), before);
    }

    #[test]
    fn a_certificate_of_another_authority_is_refused_when_it_is_loaded() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(dir.path()).unwrap();
        init(other.path()).unwrap();
        let made = issue(other.path(), &name("242"), &[], NODE_DAYS).unwrap();
        let error = Tls::load(files(dir.path(), &made)).unwrap_err().to_string();
        assert!(error.contains("242.pem") && error.contains("ca.pem"), "{error}");
    }

    #[tokio::test]
    async fn both_ends_learn_each_others_name() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let load = |text: &str| {
            let made = issue(dir.path(), &name(text), &[], NODE_DAYS).unwrap();
            Tls::load(files(dir.path(), &made)).unwrap()
        };
        let (hub, leaf) = (load("central"), load("shop-3/till:7"));
        let (near, far) = tokio::io::duplex(1 << 16);
        let (accepted, connected) = tokio::join!(hub.accept(near), leaf.connect(far));
        assert_eq!(accepted.unwrap().1, name("shop-3/till:7"));
        assert_eq!(connected.unwrap().1, name("central"));
    }

    #[tokio::test]
    async fn a_stranger_is_refused_by_both_ends() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let load = |dir: &Path, text: &str| {
            init(dir).unwrap();
            let made = issue(dir, &name(text), &[], NODE_DAYS).unwrap();
            Tls::load(files(dir, &made)).unwrap()
        };
        let (hub, stranger) = (load(dir.path(), "central"), load(other.path(), "central"));
        let (near, far) = tokio::io::duplex(1 << 16);
        let (accepted, connected) = tokio::join!(hub.accept(near), stranger.connect(far));
        assert!(accepted.is_err() && connected.is_err());
    }

    #[tokio::test]
    async fn a_replaced_certificate_is_taken_and_one_of_another_name_is_not() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let made = issue(dir.path(), &name("242"), &[], NODE_DAYS).unwrap();
        let tls = Tls::load(files(dir.path(), &made)).unwrap();
        assert_eq!(tls.reload(), Ok(false));
        let replace = |from: &Made, by: u64| {
            for (from, to) in [(&from.cert, &made.cert), (&from.key, &made.key)] {
                std::fs::copy(from, to).unwrap();
                let later = std::time::SystemTime::now() + Duration::from_secs(by);
                OpenOptions::new().append(true).open(to).unwrap().set_modified(later).unwrap();
            }
        };
        let other = issue(dir.path(), &name("241"), &[], NODE_DAYS).unwrap();
        replace(&other, 10);
        assert!(tls.reload().unwrap_err().to_string().contains("241"));
        let spare = tempfile::tempdir().unwrap();
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(dir.path().join(file), spare.path().join(file)).unwrap();
        }
        replace(&issue(spare.path(), &name("242"), &[], NODE_DAYS).unwrap(), 20);
        assert_eq!(tls.reload(), Ok(true));
        assert_eq!(tls.name(), name("242"));
    }
}
