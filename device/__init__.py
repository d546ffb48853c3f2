"""The reference agent of a device, as customers copy it. docs/device-contract.md says the rules."""
