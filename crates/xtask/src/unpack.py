"""Unpacks members of a wheel or a source archive (also of a tar inside a tar).

usage: unpack.py ARCHIVE DEST RULE...   RULE is `regular expression=path below DEST`
"""
import io, os, re, shutil, sys, tarfile, zipfile

archive, dest, *rules = sys.argv[1:]
rules = [(re.compile(pattern), path) for pattern, path in (rule.rsplit("=", 1) for rule in rules)]


def place(name, source):
    for pattern, path in rules:
        found = pattern.fullmatch(name)
        if found:
            target = os.path.join(dest, found.expand(path))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            return True
    return False


def tar(file):
    count = 0
    with tarfile.open(fileobj=file, mode="r:gz") as members:
        for member in members:
            if not member.isfile():
                continue
            content = members.extractfile(member)
            if member.name.endswith((".tar.gz", ".tgz")):
                count += tar(io.BytesIO(content.read()))
            else:
                count += place(member.name, content)
    return count


shutil.rmtree(dest, ignore_errors=True)
os.makedirs(dest)
if zipfile.is_zipfile(archive):
    with zipfile.ZipFile(archive) as members:
        count = 0
        for name in members.namelist():
            if not name.endswith("/"):
                with members.open(name) as content:
                    count += place(name, content)
else:
    with open(archive, "rb") as file:
        count = tar(file)
if count == 0:
    sys.exit(f"{archive} holds none of the files looked for")
