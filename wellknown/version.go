package wellknown

// version is set by the linker (see the Makefile).
var version = "dev"

// Version is that of this build; both halves and the tools are built as one.
func Version() string { return version }
