"""Count the records of all objects of a bucket with boto3, in one or more threads."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config


def main(endpoint: str, bucket: str, threads: int) -> None:
    """Print the number of records, with `threads` concurrent requests."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="a-secret-key",
        config=Config(max_pool_connections=threads),
    )

    def count(key: str) -> int:
        return len(json.loads(client.get_object(Bucket=bucket, Key=key)["Body"].read()))

    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = (one["Key"] for page in pages for one in page["Contents"])
    if threads == 1:
        print(sum(map(count, keys)))
        return
    with ThreadPoolExecutor(threads) as pool:
        print(sum(pool.map(count, keys)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
