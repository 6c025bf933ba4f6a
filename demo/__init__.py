"""What `make demo` protects and how it proves the result: `site` makes and changes a small application's data,
`compare` says in what two trees differ.
"""
