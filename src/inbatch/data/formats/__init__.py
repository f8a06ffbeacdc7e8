"""Formats of training files, one file each.

A format is a frozen dataclass of its keys, which a file of conf/data/format/ names, and of one of three
kinds (base.py):

* `ColumnFormat`: the columns are the rows, and are read as they stand;
* `RecordFormat`: each record is turned into rows, which are written to the disk once (convert.py);
* `IdFormat`: rows of ids, and their texts elsewhere (id_rows.py).
"""
