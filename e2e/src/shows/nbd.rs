//! The NBD export judged by other people's tools: on a unix socket and over TLS on TCP, with the twin in sync, both copies
//! compared afterwards. Clients without the set's papers are judged by what they do not get.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use peer::control::DiskOrder;
use serde_json::{Value, json};

use super::Options;
use crate::command;
use crate::report::{Outcome, Table};
use crate::rig::{KEY, Plan, Rig, SET, Side};

/// Bytes of the set.
const SIZE: u64 = 256 << 20;
/// Bytes of the image that is carried in and out: less than the set, and no round figure.
const IMAGE: u64 = (150 << 20) + 4096;
/// Where the export listens on TCP, in the first host.
const ADDRESS: &str = "10.78.1.1:10809";
/// Bound of one tool.
const LIMIT: Duration = Duration::from_secs(180);
/// Pieces in which files are compared.
const PIECE: usize = 4 << 20;
/// The protocol's error for a request that does not fit.
const EINVAL: u32 = 22;

/// One way to the export.
struct Way {
    name: &'static str,
    uri: String,
    /// The network namespace that tools run in, and the folder with the papers for TLS.
    secure: Option<(String, PathBuf)>,
}

/// What the judges work on.
struct Court {
    folder: PathBuf,
    table: Table,
    judges: u32,
    failed: Vec<String>,
}

/// Runs all judges.
pub fn run(_options: &Options) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix("futago-nbd-").tempdir()?;
    let mut rig = Rig::new(&Plan { size: SIZE, ..Plan::default() })?;
    let socket = folder.path().join("export.sock");
    rig.one.options["nbd"] = json!({ "name": "data", "unix": socket, "tcp": [ADDRESS], "tls": true });
    rig.build()?;
    let exports = rig.one.status()?.exports;
    let [unix, tcp] = exports.as_slice() else { bail!("two exports are wanted, told are {exports:?}") };
    let papers = |name: &str, key: u8| papers(folder.path(), name, key, SET);
    let secure = |papers: PathBuf| Way {
        name: "TLS",
        uri: format!("{tcp}?tls-certificates={}", papers.display()),
        secure: Some((rig.one.namespace.clone(), papers)),
    };
    let ways = [Way { name: "unix", uri: unix.clone(), secure: None }, secure(papers("client", KEY)?)];
    let mut court = Court {
        folder: folder.path().to_owned(),
        table: Table::new(&["judge", "over", "s", "verdict"]),
        judges: 0,
        failed: Vec::new(),
    };
    fill(&court.folder.join("image"), IMAGE)?;
    for way in &ways {
        court.judge("nbdinfo", way, |_| nbdinfo(way));
        court.judge("qemu-io: patterns, FUA, zeroes, discard", way, |_| qemu_io(way));
        court.judge("nbdcopy in and out", way, |court| nbdcopy(&court.folder, way));
        court.judge("qemu-img: convert, compare, and back", way, |court| convert(&court.folder, way));
    }
    // Neither says how to reach an export over TLS: fio not at all, qemu-img not when it makes an image.
    court.judge("qemu-img: qcow2 on the export, check", &ways[0], |_| qcow2(&ways[0]));
    court.judge("fio: random writes of all sizes, verify", &ways[0], |court| fio(&court.folder, &ways[0]));
    let clear = Way { uri: tcp.replace("nbds:", "nbd:"), ..secure(papers("unused", KEY)?) };
    court.judge("nbdinfo in clear is told to use TLS", &clear, |_| turned_away(&clear, "TLS"));
    let foreign =
        [papers("other-cluster", KEY + 1)?, self::papers(folder.path(), "other-set", KEY, SET + 1)?];
    for (name, papers) in ["papers of another cluster", "papers of another set"].iter().zip(foreign) {
        // Both ends see it; the client is to believe the set, so that it is the set that refuses.
        fs::copy(folder.path().join("client/ca-cert.pem"), papers.join("ca-cert.pem"))?;
        let way = secure(papers);
        court.judge(&format!("nbdinfo with {name} is turned away"), &way, |_| turned_away(&way, ""));
    }
    let way = secure(self::papers(folder.path(), "unbelieved", KEY + 2, SET)?);
    court.judge("nbdinfo that believes another cluster goes", &way, |_| turned_away(&way, ""));
    court.judge("a request off the grid is refused", &ways[0], |_| refusal(&socket));
    let device = rig.one.device()?;
    court.judge("blkdiscard, mkfs, fstrim on the device", &ways[0], |court| {
        trim(&court.folder, &device, &ways[0])
    });
    let last = court.folder.join("last");
    court.judge("nbdcopy out, 4 connections", &ways[1], |_| copy(&ways[1], &ways[1].uri, &text(&last)));
    rig.one.order(DiskOrder::Deactivate)?;
    rig.one.quit()?;
    rig.two.quit()?;
    let difference = rig.difference()?;
    for side in [&rig.one, &rig.two] {
        let name = format!("copy of server {} against what was read", side.id);
        court.judge(&name, &ways[1], |_| same_copy(side, &last));
    }
    court.table.print();
    let holds = court.failed.is_empty() && difference.is_none();
    for failed in &court.failed {
        println!("\n{failed}");
    }
    let facts = json!({
        "judges": court.judges, "failed": court.failed.len(), "copies_equal": difference.is_none(),
        "compared_bytes": SIZE,
    });
    Ok(Outcome::new(holds, facts))
}

impl Court {
    /// One judge's verdict.
    fn judge(&mut self, name: &str, way: &Way, hears: impl FnOnce(&Self) -> Result<()>) {
        let began = Instant::now();
        let verdict = hears(self);
        self.judges += 1;
        let word = if verdict.is_ok() { "holds" } else { "FAILS" };
        let seconds = format!("{:.1}", began.elapsed().as_secs_f64());
        self.table.row(&[name, way.name, &seconds, word]);
        if let Err(error) = verdict {
            self.failed.push(format!("{name} over {}: {error:#}", way.name));
        }
    }
}

impl Way {
    /// A tool that can reach the export.
    fn tool(&self, name: &str) -> Command {
        match &self.secure {
            None => Command::new(name),
            Some((namespace, _)) => {
                let mut tool = Command::new("nsenter");
                tool.arg(format!("--net=/run/netns/{namespace}")).arg(name);
                tool
            }
        }
    }

    /// The export as an image of this format, for QEMU's tools: what goes before the name, and the name.
    fn image(&self, format: &str) -> (Vec<String>, String) {
        match &self.secure {
            None => (vec!["-f".into(), format.into()], self.uri.clone()),
            Some((_, papers)) => {
                let (host, port) = ADDRESS.split_once(':').unwrap_or_default();
                let image = format!(
                    "driver={format},file.driver=nbd,file.host={host},file.port={port},file.export=data,file.tls-creds=tls"
                );
                (vec!["--object".into(), credentials(papers), "--image-opts".into()], image)
            }
        }
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<String> {
        command::output(self.tool(name).args(arguments), LIMIT)
    }
}

/// How QEMU's tools are told of the papers.
fn credentials(papers: &Path) -> String {
    format!("tls-creds-x509,id=tls,endpoint=client,dir={}", papers.display())
}

/// Has the program make papers for a client, as an operator would; of a cluster whose key is this byte throughout.
fn papers(folder: &Path, name: &str, key: u8, set: u16) -> Result<PathBuf> {
    let data = folder.join(format!("{name}.data"));
    fs::create_dir(&data)?;
    fs::write(data.join("cluster.key"), [key; 32])?;
    let made = folder.join(name);
    let mut order = Command::new(crate::paths::program()?);
    order.args(["set", "certificate", &set.to_string()]).arg(&made).arg("--data").arg(&data);
    let _ = command::output(&mut order, LIMIT)?;
    Ok(made)
}

/// A client that gets nothing, and hears this word.
fn turned_away(way: &Way, word: &str) -> Result<()> {
    let said = command::collect(way.tool("nbdinfo").args(["--size", &way.uri]), LIMIT)?;
    ensure!(!said.status.success() && said.err.contains(word), "{}{}", said.out, said.err);
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Bytes of chance with stretches of zeroes between them, the same each time.
fn fill(path: &Path, length: u64) -> Result<()> {
    let mut file = std::io::BufWriter::new(File::create(path)?);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for word in 0..length / 8 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let zero = (word >> 17).is_multiple_of(5);
        file.write_all(&if zero { 0 } else { random }.to_le_bytes())?;
    }
    Ok(file.flush()?)
}

fn nbdinfo(way: &Way) -> Result<()> {
    let told = way.run("nbdinfo", &["--json", &way.uri])?;
    let told: Value = serde_json::from_str(&told).context("nbdinfo's JSON")?;
    let export = told["exports"].get(0).context("no export")?;
    ensure!(told["protocol"] == "newstyle-fixed" && told["structured"] == true, "{told}");
    let wanted = json!({
        "export-size": SIZE, "is_read_only": false, "can_flush": true, "can_fua": true, "can_trim": true,
        "can_zero": true, "can_multi_conn": true, "can_df": true, "can_fast_zero": false, "can_cache": false,
        "block_size_minimum": 512, "block_size_preferred": 4096, "block_size_maximum": 1 << 20,
    });
    for (name, value) in wanted.as_object().into_iter().flatten() {
        ensure!(export[name] == *value, "{name} is {}, wanted is {value}", export[name]);
    }
    let list = way.run("nbdinfo", &["--list", "--json", &way.uri])?;
    let list: Value = serde_json::from_str(&list)?;
    let names = list["exports"].as_array().context("no list")?;
    ensure!(names.len() == 1 && names[0]["export-name"] == "data", "{list}");
    Ok(())
}

fn qemu_io(way: &Way) -> Result<()> {
    let commands = [
        "write -P 0xaa 0 1M",
        "write -P 0xbb 1M 5M",
        "write -f -P 0xcc 7M 64k",
        "aio_write -P 0x11 40M 1M",
        "aio_write -P 0x22 41M 1M",
        "aio_flush",
        "flush",
        "read -P 0xaa 0 1M",
        "read -P 0xbb 1M 5M",
        "read -P 0xcc 7M 64k",
        "read -P 0x11 40M 1M",
        "read -P 0x22 41M 1M",
        // Not on the grid of 512: the client reads, changes and writes.
        "write -P 0xdd 100 1000",
        "read -P 0xaa 0 100",
        "read -P 0xdd 100 1000",
        "read -P 0xaa 1100 1000",
        "write -z 2M 3M",
        "read -P 0xbb 1M 1M",
        "read -P 0 2M 3M",
        "read -P 0xbb 5M 1M",
        "write -P 0xee 8M 100M",
        "write -z -u -f 10M 60M",
        "read -P 0 10M 60M",
        "discard 80M 20M",
        "read -P 0xee 8M 2M",
        "read -P 0xee 70M 10M",
        "read -P 0 80M 20M",
        "read -P 0xee 100M 8M",
    ];
    let mut tool = way.tool("qemu-io");
    let (before, image) = way.image("raw");
    tool.args(before).args(["-t", "none", "--discard", "unmap"]);
    for command in commands {
        tool.args(["-c", command]);
    }
    let said = command::collect(tool.arg(image), LIMIT)?;
    let all = format!("{}{}", said.out, said.err);
    let bad = ["verification failed", "failed:", "error"].iter().any(|word| all.contains(word));
    ensure!(said.status.success() && !bad, "{all}");
    Ok(())
}

fn copy(way: &Way, from: &str, to: &str) -> Result<()> {
    let _ = way.run("nbdcopy", &["--connections=4", "--requests=64", "--flush", from, to])?;
    Ok(())
}

fn nbdcopy(folder: &Path, way: &Way) -> Result<()> {
    let (image, back) = (folder.join("image"), folder.join("back"));
    copy(way, &text(&image), &way.uri)?;
    copy(way, &way.uri, &text(&back))?;
    ensure!(fs::metadata(&back)?.len() == SIZE, "not the whole set came back");
    ensure!(same(&image, 0, &back, 0, IMAGE)?, "something else came back");
    Ok(())
}

fn convert(folder: &Path, way: &Way) -> Result<()> {
    let (image, back) = (text(&folder.join("whole")), text(&folder.join("converted")));
    fs::copy(folder.join("image"), &image)?;
    File::options().write(true).open(&image)?.set_len(SIZE)?;
    // Written over what is there: what the image has as holes must read as zeroes.
    let (before, export) = way.image("raw");
    let run = |name: &str, arguments: &[&str]| command::output(way.tool(name).args(arguments), LIMIT);
    let _ = command::output(
        way.tool("qemu-io").args(&before).args(["-c", "write -P 0x77 0 256M", &export]),
        LIMIT,
    )?;
    match &way.secure {
        None => {
            let _ =
                run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", "-t", "none", &image, &export])?;
            let _ = run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &image, &export])?;
            let _ = run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &export, &back])?;
        }
        Some((_, papers)) => {
            let object = credentials(papers);
            let file = format!("driver=raw,file.driver=file,file.filename={image}");
            let into =
                ["convert", "-n", "-t", "none", "--object", &object, "--image-opts", "--target-image-opts"];
            let _ = run("qemu-img", &[&into[..], &[&file, &export]].concat())?;
            let _ = run("qemu-img", &["compare", "--object", &object, "--image-opts", &file, &export])?;
            let _ = run(
                "qemu-img",
                &["convert", "--object", &object, "--image-opts", "-O", "raw", &export, &back],
            )?;
        }
    }
    ensure!(same(Path::new(&image), 0, Path::new(&back), 0, SIZE)?, "something else came back");
    Ok(())
}

fn qcow2(way: &Way) -> Result<()> {
    let _ = way.run("qemu-img", &["create", "-q", "-f", "qcow2", &way.uri, "128M"])?;
    let writes = ["-c", "write -P 0x5a 0 16M", "-c", "write -P 0x6b 77M 3M", "-c", "write -z 4M 4M"];
    let mut arguments = vec!["-f", "qcow2", "-t", "none"];
    arguments.extend(writes);
    arguments.push(&way.uri);
    let _ = way.run("qemu-io", &arguments)?;
    let _ = way.run("qemu-img", &["check", "-f", "qcow2", &way.uri])?;
    let reads = ["-c", "read -P 0x5a 0 4M", "-c", "read -P 0 4M 4M", "-c", "read -P 0x6b 77M 3M"];
    let mut arguments = vec!["-r", "-f", "qcow2"];
    arguments.extend(reads);
    arguments.push(&way.uri);
    let said = way.run("qemu-io", &arguments)?;
    ensure!(!said.contains("verification failed"), "{said}");
    Ok(())
}

fn fio(folder: &Path, way: &Way) -> Result<()> {
    let job = format!(
        "[global]\nioengine=nbd\nuri={}\nrw=randwrite\nverify=crc32c\nverify_fatal=1\ndo_verify=1\nverify_backlog=512\n\
         bssplit=512/5:4k/60:16k/15:64k/10:1m/10\niodepth=24\nfsync=64\nrandrepeat=0\n\
         [one]\noffset=0\nsize=96m\n[two]\noffset=128m\nsize=96m\n",
        way.uri
    );
    let file = folder.join(format!("{}.fio", way.name));
    fs::write(&file, job)?;
    let said =
        command::output(way.tool("fio").arg("--output-format=json").arg(&file).current_dir(folder), LIMIT)?;
    let told: Value = serde_json::from_str(said.get(said.find('{').unwrap_or(0)..).unwrap_or_default())?;
    let jobs = told["jobs"].as_array().context("no jobs")?;
    ensure!(jobs.len() == 2 && jobs.iter().all(|job| job["error"] == 0), "{told}");
    let written = jobs.iter().filter_map(|job| job["write"]["io_bytes"].as_u64()).sum::<u64>();
    ensure!(written >= 180 << 20, "only {written} bytes were written");
    Ok(())
}

/// A request that no tool sends: between two sectors. By the oldest handshake.
fn refusal(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut hello = [0; 18];
    stream.read_exact(&mut hello)?;
    let mut out = 3_u32.to_be_bytes().to_vec();
    out.extend_from_slice(b"IHAVEOPT");
    out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 4]);
    out.extend_from_slice(b"data");
    stream.write_all(&out)?;
    let mut export = [0; 10];
    stream.read_exact(&mut export)?;
    for (offset, length, refused) in [(1_u64, 512_u32, true), (0, 100, true), (512, 512, false)] {
        let mut out = 0x2560_9513_u32.to_be_bytes().to_vec();
        out.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]);
        out.extend_from_slice(&offset.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.resize(out.len() + length as usize, 0x3c);
        stream.write_all(&out)?;
        let mut reply = [0; 16];
        stream.read_exact(&mut reply)?;
        let error = u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]);
        ensure!(error == if refused { EINVAL } else { 0 }, "{length} bytes at {offset}: error {error}");
    }
    Ok(())
}

/// The device beside the export: what it discards reads as zeroes there, and a file system on it can be trimmed.
fn trim(folder: &Path, device: &Path, way: &Way) -> Result<()> {
    let name = text(device);
    let tool = |name: &str, arguments: &[&str]| command::output(Command::new(name).args(arguments), LIMIT);
    let _ = way.run("qemu-io", &["-f", "raw", "-c", "write -P 0x99 0 256M", &way.uri])?;
    let _ = tool("blkdiscard", &["-o", "16M", "-l", "160M", &name])?;
    let _ = tool("blkdiscard", &["-z", "-o", "200M", "-l", "20M", &name])?;
    let reads = ["read -P 0x99 0 16M", "read -P 0 16M 160M", "read -P 0x99 176M 24M", "read -P 0 200M 20M"];
    let mut arguments = vec!["-r", "-f", "raw"];
    reads.iter().for_each(|read| arguments.extend(["-c", read]));
    arguments.push(&way.uri);
    let said = way.run("qemu-io", &arguments)?;
    ensure!(!said.contains("verification failed"), "{said}");
    let _ = tool("mkfs.ext4", &["-q", "-F", &name])?;
    let point = folder.join("mounted");
    fs::create_dir_all(&point)?;
    let point = text(&point);
    let _ = tool("mount", &[&name, &point])?;
    let result = (|| {
        fs::copy(folder.join("image"), Path::new(&point).join("large"))?;
        File::open(Path::new(&point).join("large"))?.sync_all()?;
        fs::remove_file(Path::new(&point).join("large"))?;
        tool("fstrim", &["-v", &point])
    })();
    let _ = tool("umount", &[&point])?;
    let said = result?;
    ensure!(!said.contains(" 0 B"), "nothing was trimmed: {said}");
    let _ = tool("fsck.ext4", &["-f", "-n", &name])?;
    Ok(())
}

/// Whether two files hold the same bytes from these offsets on.
fn same(one: &Path, at: u64, two: &Path, from: u64, length: u64) -> Result<bool> {
    let (one, two) = (File::open(one)?, File::open(two)?);
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    let mut done = 0;
    while done < length {
        let part = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        let (left, right) = (&mut left[..part], &mut right[..part]);
        one.read_exact_at(left, at + done)?;
        two.read_exact_at(right, from + done)?;
        if left != right {
            return Ok(false);
        }
        done += part as u64;
    }
    Ok(true)
}

fn same_copy(side: &Side, read: &Path) -> Result<()> {
    ensure!(same(&side.image(), side.data_at()?, read, 0, SIZE)?, "the image is something else");
    Ok(())
}
