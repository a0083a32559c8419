"""An image of several layers, made on the spot: half of its bytes compress as programs and texts do, half not at all."""
import hashlib, io, json, os, random, tarfile
from bench_measure import BUSYBOX, WORK, run

MB = 1000 * 1000
# Of each layer: the files, the bytes of each, and whether they compress.
LAYERS = [
    ("small", 4000, 16_000, True), ("programs", 43, 2 * MB, True), ("models", 2, 60 * MB, False),
    ("archives", 26, 5 * MB, False), ("texts", 100, MB, True),
]


def contents(seed):
    """A function that makes bytes, the same ones each time for one seed."""
    source = random.Random(seed)
    words = [bytes(source.choices(range(97, 123), k=source.randint(2, 12))) for _ in range(8192)]
    # Longer than any window of a compressor, so that its repetitions are not found.
    text = b" ".join(source.choices(words, k=1 << 20))

    def make(size, compressible):
        if not compressible:
            return source.randbytes(size)
        start = source.randrange(len(text))
        return (text[start:] + text * (size // len(text) + 1))[:size]

    return make


def layer(path, entries):
    """Writes a tar of (name, mode, bytes); returns its digest and size."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode, data in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), mode, 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    with open(path, "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest(), os.path.getsize(path)


def files(make, title, count, size, compressible):
    """The entries of one layer; two hundred files to a directory."""
    for number in range(count):
        yield f"usr/{title}/{number // 200:02}/{number:04}", 0o644, make(size, compressible)


def put(folder, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{folder}/{digest}", "wb") as file:
        file.write(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def fill(address, name, seed=1):
    """Makes the image and puts it into a registry; skopeo compresses its layers with gzip on the way.

    Returns the digests of its blobs in the registry, their bytes, and the bytes of the tars."""
    folder = f"{WORK}/layout"
    blobs = f"{folder}/blobs/sha256"
    os.makedirs(blobs)
    make = contents(seed)
    base = [("bin/busybox", 0o755, open(BUSYBOX, "rb").read())]
    plans = [base] + [files(make, *plan) for plan in LAYERS]
    layers = []
    for entries in plans:
        digest, size = layer(f"{folder}/layer", entries)
        os.rename(f"{folder}/layer", f"{blobs}/{digest[7:]}")
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = {"architecture": machine, "os": "linux", "config": {"Cmd": ["/bin/busybox", "true"]},
              "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in layers]}}
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(blobs, json.dumps(config).encode())}}
    entry = {"mediaType": manifest["mediaType"], **put(blobs, json.dumps(manifest).encode())}
    json.dump({"schemaVersion": 2, "manifests": [entry]}, open(f"{folder}/index.json", "w"))
    json.dump({"imageLayoutVersion": "1.0.0"}, open(f"{folder}/oci-layout", "w"))
    run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", f"oci:{folder}", f"docker://{address}/{name}")
    run("rm", "-r", folder)
    stored = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{address}/{name}").stdout)
    digests = {each["digest"]: each["size"] for each in stored["layers"]}
    return list(digests), sum(digests.values()), sum(each["size"] for each in layers)
