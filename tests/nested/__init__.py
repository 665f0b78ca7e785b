"""The KVM engine on a host that translates addresses in hardware: nested SVM under emulation."""
