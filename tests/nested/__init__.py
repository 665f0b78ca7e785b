"""The KVM engine on hosts that run ring 0 natively: nested SVM under emulation, with nested paging and without."""
