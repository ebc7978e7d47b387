"""Another endpoint is one file: the contract in docs/another-api.md publishes products."""

import json
import re
import shutil
import sys
from pathlib import Path

import duckdb

from randusers_assets_tests.sandbox.processes import randusers

ROOT = Path(__file__).parent.parent
PRODUCTS = r"""[
{"id": 1, "title": "iPhone 9", "description": "An apple mobile, which is nothing like apple",
 "price": 549.99, "discountPercentage": 12.96, "rating": 4.69, "stock": 94, "brand": "Apple",
 "category": "smartphones", "thumbnail": "https://i.example.com/1.jpg",
 "images": ["https://i.example.com/2.jpg", "https://i.example.com/3.jpg"]},
{"id": 2, "title": "Monitor 27\", curved", "description": "The \"best\" picture, says its maker",
 "price": 899, "discountPercentage": null, "rating": 4, "stock": 0, "brand": null,
 "category": "monitors", "thumbnail": "https://i.example.com/4.jpg", "images": []},
{"id": 3, "title": "Crème de jour 30 ml", "description": "", "price": 0.5,
 "discountPercentage": 0, "rating": 3.0, "stock": 1200, "brand": "L'Orée",
 "category": "skincare", "thumbnail": null, "images": ["https://i.example.com/5.jpg?size=s,m"]}
]"""
CSV = """\
"id","title","description","price","discountPercentage","rating","stock","brand","category",\
"thumbnail","images"
1,"iPhone 9","An apple mobile, which is nothing like apple",549.99,12.96,4.69,94,"Apple",\
"smartphones","https://i.example.com/1.jpg",\
"[""https://i.example.com/2.jpg"",""https://i.example.com/3.jpg""]"
2,"Monitor 27"", curved","The ""best"" picture, says its maker",899,,4,0,,"monitors",\
"https://i.example.com/4.jpg","[]"
3,"Crème de jour 30 ml","",0.5,0,3,1200,"L'Orée","skincare",,\
"[""https://i.example.com/5.jpg?size=s,m""]"
"""
# In the sandbox: publish, verify, and keep what is in the bucket.
SESSION = """
import json, pathlib, sys
import randusers_assets
from randusers_assets.cli.main import main
from randusers_assets.definitions import snapshot_store

for sys.argv[1:] in (["run"], ["verify"]):
    assert main() == 0
store = snapshot_store.store
latest = json.loads(store.read("_receipts/products_csv/latest.json", "")[0])
path = f"products_csv/dt={latest['date']}/products.csv"
assert latest["csv"] == store.uri(path)
pathlib.Path("published.csv").write_bytes(store.read(path, "")[0])
print(randusers_assets.__file__)
print(randusers_assets.load_users()[["price", "stock", "images"]].dtypes.astype(str).to_json())
"""


def test_another_api_is_published_and_verified(tmp_path: Path) -> None:
    """With the document's contract.py and no other change the products are published and proved."""
    package = tmp_path / "randusers_assets"
    shutil.copytree(ROOT / package.name, package, ignore=shutil.ignore_patterns("__pycache__"))
    document = (ROOT / "docs" / "another-api.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", document, re.M | re.S)
    (package / "contract.py").write_text(block, encoding="utf-8")
    (tmp_path / "products.json").write_text(PRODUCTS, encoding="utf-8")
    command = (sys.executable, "-c", SESSION)
    options = ("--users-file", "products.json", "--")
    done = randusers("sandbox", *options, *command, cwd=str(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert ".jsonl.zst, the CSV has the same SHA-256\n" in done.stdout
    imported, types = done.stdout.splitlines()[-2:]
    assert Path(imported) == package / "__init__.py"
    assert json.loads(types) == {"price": "float64", "stock": "int64", "images": "str"}
    published = tmp_path / "published.csv"
    assert published.read_text(encoding="utf-8") == CSV
    rows = duckdb.read_csv(str(published), header=True, na_values="", allow_quoted_nulls=False)
    assert dict(zip(rows.columns, map(str, rows.types), strict=True)) == {
        **dict.fromkeys(rows.columns, "VARCHAR"),
        **dict.fromkeys(("id", "stock"), "BIGINT"),
        **dict.fromkeys(("price", "discountPercentage", "rating"), "DOUBLE"),
    }
    read = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert [{**row, "images": json.loads(row["images"])} for row in read] == json.loads(PRODUCTS)
