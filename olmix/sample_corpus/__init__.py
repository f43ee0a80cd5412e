"""The text of the sample project, made on the spot: seven domains, nine tasks and a tokeniser.

Everything comes from packages that `pip install 'olmix[sample]'` has already brought (their sources,
headers and docstrings) or from named generators, so nothing is downloaded and nothing is committed. The
same installed packages give the same bytes. What this gives up: another version of torch or Python is
another corpus, so its numbers can be compared on one machine and not across machines.
"""
