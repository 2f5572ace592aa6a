//! The images that containers are started from.
//!
//! There is no registry here: an image is a program of this machine, and the part of the machine's files that it needs. The image of
//! Isthmus has the program, its libraries and the CAs of the system, and neither a shell nor a folder for temporary files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// An image.
pub(crate) struct Image {
    /// What is run if the container has no `command`.
    pub(crate) entrypoint: String,
    /// The user if none is set.
    pub(crate) user: u32,
    /// Folders and files of this machine that the image has, read-only, and where.
    pub(crate) files: Vec<(PathBuf, &'static str)>,
    /// Whether it is a small system with a shell and `/tmp`.
    is_system: bool,
}

/// The programs in the images of Isthmus.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The program under test.
    pub isthmus: PathBuf,
    /// The program in the image whose tag is `previous`.
    pub previous: Option<PathBuf>,
}

/// The image of this name, whatever its registry. Of the tags, only `previous` matters.
pub(crate) fn image(name: &str, programs: &Programs) -> Result<Image, String> {
    let without_registry = name.rsplit('/').next().unwrap_or(name);
    let mut parts = without_registry.split([':', '@']);
    let (without_tag, tag) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let system = |program: &str| Image {
        entrypoint: format!("/usr/bin/{program}"),
        user: 65_534,
        files: vec![(PathBuf::from("/usr"), "/usr")],
        is_system: true,
    };
    let isthmus = match (tag, &programs.previous) {
        ("previous", None) => return Err(format!("image {name}: there is no previous program")),
        ("previous", Some(previous)) => previous.clone(),
        _ => programs.isthmus.clone(),
    };
    match without_tag {
        "isthmus" => Ok(Image {
            entrypoint: "/usr/local/bin/isthmus".to_owned(),
            user: 65_532,
            files: vec![
                (PathBuf::from("/usr/lib"), "/usr/lib"),
                (PathBuf::from("/usr/lib64"), "/usr/lib64"),
                (isthmus, "/usr/local/bin/isthmus"),
            ],
            is_system: false,
        }),
        "prometheus" => Ok(system("prometheus")),
        "pushgateway" => Ok(system("prometheus-pushgateway")),
        "alertmanager" => Ok(system("prometheus-alertmanager")),
        _ => Err(format!("image {name}: no program on this machine replaces it")),
    }
}

impl Image {
    /// Writes the files of the image, except those of this machine, which are mounted later.
    pub(crate) fn unpack(&self, root: &Path) -> std::io::Result<()> {
        for folder in ["dev", "etc", "proc", "sys", "usr"] {
            fs::create_dir_all(root.join(folder))?;
        }
        for folder in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{folder}"), root.join(folder))?;
        }
        if self.is_system {
            let temporary = root.join("tmp");
            fs::create_dir(&temporary)?;
            fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777))?;
        }
        fs::create_dir(root.join("etc/ssl"))?;
        fs::write(root.join("etc/nsswitch.conf"), "hosts: files dns\n")?;
        let users = "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
        fs::write(root.join("etc/passwd"), users)?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")
    }
}
