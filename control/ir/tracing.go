package ir

// Tracing is how a connection manager samples and tags spans. Percentages are 0..100.
type Tracing struct {
	ClientSampling  float64 // of requests that ask for a trace
	RandomSampling  float64
	OverallSampling float64
	Tags            []TracingTag // sorted by name
	MaxPathTag      uint32       // bytes of the path kept in a span, 0 for the proxy's default
	// Zipkin is the cluster that spans go to in Zipkin's form; "" leaves the tracer to the
	// proxy's bootstrap.
	Zipkin string
}

// A TracingTag is a tag put on every span: a Literal, or a value of the request's
// dynamic metadata where MetadataKey is set.
type TracingTag struct {
	Name         string
	Literal      string
	MetadataKey  string // filter namespace
	MetadataPath string
}
