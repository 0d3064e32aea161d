package wellknown

// version is set by the build (-ldflags -X).
var version = "dev"

// Version is the version of this build, "dev" when it was built without one.
func Version() string { return version }
