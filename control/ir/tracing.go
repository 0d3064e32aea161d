package ir

import "time"

// Tracing is how a connection manager samples and tags spans. Percentages are 0..100.
type Tracing struct {
	ClientSampling  float64 // of requests that ask for a trace
	RandomSampling  float64
	OverallSampling float64
	Tags            []TracingTag // sorted by name
	MaxPathTag      uint32       // bytes of the path kept in a span, 0 for the proxy's default
	Tracer          *Tracer      // nil leaves it to the proxy's bootstrap
}

// A TracerForm is how spans are told, and how traces go on in headers.
type TracerForm uint8

// The forms.
const (
	Zipkin   TracerForm = iota // JSON, B3
	OTLP                       // OpenTelemetry over gRPC, W3C
	OTLPHTTP                   // OpenTelemetry over HTTP, W3C
)

// A Tracer is where spans go.
type Tracer struct {
	Form     TracerForm
	Cluster  string
	Host     string // by which the cluster is called
	Path     string // of Zipkin and OTLPHTTP
	Timeout  time.Duration
	Headers  []HeaderValue // of OTLP: initial metadata
	ShortIDs bool          // of Zipkin: trace ids of 64 bits
	BothB3   bool          // of Zipkin: W3C's headers beside B3's
	Service  string        // of OTLP: the workload's name
	// Environment and Dynatrace are detectors of what OTLP says of the workload.
	Environment, Dynatrace bool
}

// A TracingTag is a tag put on every span: a Literal, or a value of the request's
// dynamic metadata where MetadataKey is set.
type TracingTag struct {
	Name         string
	Literal      string
	MetadataKey  string // filter namespace
	MetadataPath string
}
