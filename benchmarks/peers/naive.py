"""The naive peer, as a blog post writes it: every page in one list, one frame, one string."""

import os

import boto3
import pandas as pd
import requests

url = os.environ["RANDUSERS_API_URL"]
users = []
page = 1
while True:
    response = requests.get(url, params={"page": page, "limit": 500}, timeout=30)
    response.raise_for_status()
    data = response.json()["data"]
    users.extend(data["data"])
    if not data["nextPage"]:
        break
    page += 1

frame = pd.json_normalize(users, sep="_")
boto3.client("s3").put_object(
    Bucket=os.environ["RANDUSERS_BUCKET"],
    Key="users.csv",
    Body=frame.to_csv(index=False).encode("utf-8"),
    ContentType="text/csv",
)
