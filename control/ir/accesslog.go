package ir

// A LogCollector takes logs by OpenTelemetry's protocol over gRPC.
type LogCollector struct {
	Cluster string
	Host    string // by which the cluster is called
	LogName string // log_name of what it is sent
}

// An AccessLog is one sink that gets a line per request or connection.
type AccessLog struct {
	Path string // file, also /dev/stdout; empty where Collector is set
	// Collector takes the lines by OpenTelemetry's protocol: the body is Text, the attributes are JSON.
	Collector *LogCollector
	// Text is the format with command operators and its newline; empty where JSON is set.
	Text string
	// JSON is the object of a line: its strings are formats, what else JSON has stands
	// for itself; lists and objects are []any and map[string]any.
	JSON map[string]any
	// OmitEmpty leaves out keys of JSON without a value, and writes nothing in place of "-".
	OmitEmpty bool
	// OnlyNoRoute logs only what found no filter chain or route (flag NR).
	OnlyNoRoute bool
}
