"""Search over the free numbers of the schedule rules, kernel by kernel, by measuring candidates on the machine."""
