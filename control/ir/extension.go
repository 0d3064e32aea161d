package ir

// An Extension is an HTTP filter that users bring, or what stands in its place.
type Extension struct {
	Name  string // of the filter, and of its settings on the wire
	Kind  ExtensionKind
	Phase ExtensionPhase
}

// An ExtensionPhase says where an extension stands among the mesh's own filters.
type ExtensionPhase uint8

// The phases of an Extension.
const (
	AuthNPhase ExtensionPhase = iota // before tokens are checked
	AuthZPhase                       // before rules of authorization decide
	LastPhase                        // after these
)

// An ExtensionKind says what an extension is written in.
type ExtensionKind uint8

// The kinds of an Extension.
const (
	WasmExtension ExtensionKind = iota
	LuaExtension
	RefusingExtension // in the place of one that cannot run: every request is answered 503
)

// A Module is the settings of an Extension that proxies ask for by name: WebAssembly or,
// where Lua is not empty, that.
type Module struct {
	Name string
	Lua  string // source text

	URL           string            // file://, http://, https:// or oci://
	SHA256        string            // of what the URL gives, "" for any
	Root          string            // which of the module's roots is meant
	Configuration string            // JSON for the module, "" for none
	Runtime       string            // the engine, as Envoy calls it
	Environment   map[string]string // of the module
	HostVariables []string          // of the proxy's own environment that the module sees
	PullPolicy    string            // when an image is asked for again, in the agent's words
	OnFailure     FailurePolicy
}

// A FailurePolicy says what becomes of requests when a module has failed.
type FailurePolicy uint8

// The policies of a failure.
const (
	FailClosed FailurePolicy = iota // answered 503
	FailOpen                        // passed on as if the module were not there
	FailReload                      // the module is started again
)
