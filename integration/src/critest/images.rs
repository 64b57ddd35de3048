//! Stand-ins for the images that critest names, each with what its specs look for in it: Debian's static busybox and our
//! payload under the paths and names of the originals.

use std::fs;
use std::path::PathBuf;

use crate::image::{Image, Layer};
use crate::node::Node;
use crate::programs;
use crate::registry::Registry;

/// A static shell with everything else in it.
const BUSYBOX: &str = "/bin/busybox";

/// The images without a registry's name, as the mirror is asked for them.
const E2E: &str = "e2e-test-images";
const CRI_TOOLS: &str = "k8s-staging-cri-tools";

/// Pushes every image; the digest of the one that critest pulls by digest.
pub(super) fn push_all(node: &Node, registry: &Registry<'_>) -> String {
    let press = Press {
        folder: node.folder("critest-images"),
        registry,
        busybox: busybox(),
        payload: fs::read(programs::ours("coracle-payload")).expect("read the payload"),
    };
    press.push_those_that_run();
    press.push_users();
    press.push_those_only_listed();
    press.push(
        &format!("{CRI_TOOLS}/test-image-digest:any"),
        press.marked("digest"),
    )
}

/// What every image is made with.
struct Press<'registry> {
    folder: PathBuf,
    registry: &'registry Registry<'registry>,
    busybox: Layer,
    payload: Vec<u8>,
}

impl Press<'_> {
    fn push_those_that_run(&self) {
        let image = Image {
            cmd: words(&["sh"]),
            ..self.base()
        };
        self.push(&format!("{E2E}/busybox:1.29-2"), image);
        // The process is called nginx, its command line tells the master process, its pid is where nginx leaves it.
        let nginx = "echo $$ >/var/run/nginx.pid; exec -a 'nginx: master process' /usr/sbin/nginx serve 80";
        self.push(&format!("{E2E}/nginx:1.14-2"), self.server("nginx", nginx));
        self.push(
            &format!("{E2E}/httpd:2.4.39-4"),
            self.server("httpd", "echo httpd serves; exec /usr/sbin/httpd serve 80"),
        );
        self.push(
            &format!("{CRI_TOOLS}/hostnet-nginx-{}:latest", go_architecture()),
            self.server("nginx", "exec /usr/sbin/nginx serve 12003"),
        );
        let setuid = Layer::default().file("nnp", 0o4755, self.payload.clone());
        let image = Image {
            layers: vec![setuid],
            entrypoint: words(&["/nnp", "effective-uid"]),
            ..Image::default()
        };
        self.push(&format!("{E2E}/nonewprivs:1.3"), image);
        let image = Image {
            layers: vec![self.busybox.clone(), predefined_group()],
            user: "1000".to_owned(),
            ..self.base()
        };
        self.push(&format!("{CRI_TOOLS}/test-image-predefined-group:latest"), image);
    }

    /// Images whose USER is all that matters.
    fn push_users(&self) {
        for (name, user) in [
            ("user-uid", "1002"),
            ("user-username", "www-data"),
            ("user-uid-group", "1003:1004"),
            ("user-username-group", "www-data:1004"),
        ] {
            let image = Image {
                user: user.to_owned(),
                ..self.marked(name)
            };
            self.push(&format!("{CRI_TOOLS}/test-image-{name}:latest"), image);
        }
    }

    /// Images that are pulled, listed and removed; two of them run as they are.
    fn push_those_only_listed(&self) {
        for name in [
            "1:latest",
            "2:latest",
            "3:latest",
            "latest:latest",
            "tag:test",
            "tag:all",
        ] {
            self.push(&format!("{CRI_TOOLS}/test-image-{name}"), self.marked(name));
        }
        for tag in ["1", "2", "3"] {
            self.push(&format!("{CRI_TOOLS}/test-image-tags:{tag}"), self.marked("tags"));
        }
        self.push("pause:3.9", self.marked("pause"));
    }

    /// An image of its own id that waits when it runs.
    fn marked(&self, marker: &str) -> Image {
        let payload = Layer::default()
            .file("payload", 0o755, self.payload.clone())
            .file("etc/passwd", 0o644, PASSWD);
        let marker = Layer::default().file("marker", 0o644, marker);
        Image {
            layers: vec![payload, marker],
            entrypoint: words(&["/payload", "sleep", "3600"]),
            ..Image::default()
        }
    }

    /// A web server called `name` that `script` starts.
    fn server(&self, name: &str, script: &str) -> Image {
        let server = Layer::default().file(&format!("usr/sbin/{name}"), 0o755, self.payload.clone());
        Image {
            layers: vec![self.busybox.clone(), server],
            cmd: words(&["sh", "-c", script]),
            ..self.base()
        }
    }

    fn base(&self) -> Image {
        Image {
            layers: vec![self.busybox.clone()],
            env: words(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
            ..Image::default()
        }
    }

    /// The manifest's digest.
    fn push(&self, name: &str, image: Image) -> String {
        let archive = self.folder.join("image.tar");
        let file = fs::File::create(&archive).expect("make an image's archive");
        image.write(&file).expect("write an image's archive");
        self.registry.push_for_digest(&archive, name)
    }
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n\
                      nobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// Debian's busybox has no `pgrep` and no `ipcs`; what the specs ask of them a few lines of shell can say. Its shell runs
/// its own programs without a look at their files, so the look comes first: a masked `/bin/ls` must not run.
const PGREP: &str = r#"#!/bin/sh
for process in /proc/[0-9]*; do
    [ "$(cat $process/comm 2>/dev/null)" = "$1" ] && echo ${process#/proc/} && found=yes
done
[ "$found" ]
"#;
const IPCS: &str = "#!/bin/sh\nexec cat /proc/sysvipc/shm\n";
const SH: &str = r#"#!/bin/busybox sh
if [ "$1" = -c ] && [ -e "/bin/$2" ] && [ ! -x "/bin/$2" ]; then
    echo "$0: $2: Permission denied" >&2
    exit 126
fi
exec /bin/busybox sh "$@"
"#;

/// busybox with a link for each of its programs, and the users of a usual system.
fn busybox() -> Layer {
    let list = programs::stdout_of(std::process::Command::new(BUSYBOX).arg("--list"));
    let mut layer = Layer::default();
    for (folder, mode) in [
        ("bin", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("usr", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/run", 0o755),
        ("tmp", 0o1777),
    ] {
        layer = layer.directory(folder, mode);
    }
    layer = layer
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
        .file("bin/busybox", 0o755, fs::read(BUSYBOX).expect("read busybox"));
    for applet in list.lines().filter(|applet| !["busybox", "sh"].contains(applet)) {
        layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    layer
        .file("bin/sh", 0o755, SH)
        .file("bin/pgrep", 0o755, PGREP)
        .file("bin/ipcs", 0o755, IPCS)
}

/// A user whom the image's own /etc/group puts into a second group.
fn predefined_group() -> Layer {
    Layer::default()
        .file(
            "etc/passwd",
            0o644,
            format!("{PASSWD}default-user:x:1000:1000::/:/bin/sh\n"),
        )
        .file(
            "etc/group",
            0o644,
            format!("{GROUP}default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"),
        )
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
