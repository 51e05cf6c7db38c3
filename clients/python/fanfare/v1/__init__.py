"""The contract, generated from `proto/fanfare/v1` by `clients/generate.sh`."""
