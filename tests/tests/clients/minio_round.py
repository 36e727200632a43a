"""The MinIO SDK's own round: a multipart upload through one node, whole, ranged, copied and conditional through another."""

import io
import urllib.parse

from minio import Minio
from minio.commonconfig import CopySource
from minio.error import S3Error

import common

options = common.arguments("write", "read", "bucket")
access, secret = common.keys()


def connect(endpoint):
    host = urllib.parse.urlsplit(endpoint).netloc
    return Minio(host, access_key=access, secret_key=secret, secure=False, region=common.region())


writer, reader = connect(options.write), connect(options.read)
data = common.body("minio", 12 * 1024 * 1024 + 17)
written = writer.put_object(
    options.bucket, "minio/größe +1.bin", io.BytesIO(data), len(data), part_size=5 * 1024 * 1024,
    content_type="application/x-stone", metadata={"course": "third"},
)
common.expect(written.etag.endswith("-3"), f"an ETag of three parts, not {written.etag}")
stat = reader.stat_object(options.bucket, "minio/größe +1.bin")
common.expect(stat.size == len(data), f"{len(data)} bytes, not {stat.size}")
common.expect(stat.content_type == "application/x-stone", f"the content type, not {stat.content_type}")
common.expect(stat.metadata.get("x-amz-meta-course") == "third", f"the metadata, not {dict(stat.metadata)}")


def read(client, name, **how):
    answer = client.get_object(options.bucket, name, **how)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


common.expect(read(reader, "minio/größe +1.bin") == data, "the bytes that were written")
part = read(reader, "minio/größe +1.bin", offset=5 * 1024 * 1024 - 3, length=1000)
common.expect(part == data[5 * 1024 * 1024 - 3:][:1000], "a range across a part's end")
reader.copy_object(options.bucket, "minio/copy", CopySource(options.bucket, "minio/größe +1.bin"))
common.expect(read(writer, "minio/copy") == data, "the bytes of the copy")
names = [item.object_name for item in writer.list_objects(options.bucket, prefix="minio/", recursive=True)]
common.expect(names == ["minio/copy", "minio/größe +1.bin"], f"both names in order, not {names}")
for name in names:
    writer.remove_object(options.bucket, name)
try:
    reader.stat_object(options.bucket, "minio/copy")
    common.expect(False, "NoSuchKey after the removal")
except S3Error as error:
    common.expect(error.code == "NoSuchKey", f"NoSuchKey, not {error.code}")
common.report(bytes=len(data))
