"""The shipped pipelines, installed as data so that the lab finds its own two."""
