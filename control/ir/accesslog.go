package ir

// An AccessLog is one sink that gets a line per request or connection.
type AccessLog struct {
	Path string // file, also /dev/stdout
	// Text is the format with command operators and its newline; empty where JSON is set.
	Text string
	JSON map[string]JSONField
	// OnlyNoRoute logs only what found no filter chain or route (flag NR).
	OnlyNoRoute bool
}

// A JSONField is a value of a JSON log line: a format string, or an object of fields.
type JSONField struct {
	Format string
	Fields map[string]JSONField
}
