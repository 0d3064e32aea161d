package wellknown

import "crypto/fips140"

// version is set by the linker (see the Makefile).
var version = "dev"

// Version is that of this build; both halves and the tools are built as one.
func Version() string { return version }

// Build is the version and, where the process keeps to FIPS 140-3, that of Go's cryptographic
// module, in words.
func Build() string {
	if !fips140.Enabled() {
		return version
	}
	return version + ", FIPS 140-3 by Go's cryptographic module " + fips140.Version()
}
