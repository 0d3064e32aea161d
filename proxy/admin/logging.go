package admin

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// loggers are the names that Envoy 1.40 has, in its order; what this proxy logs is under
// some of them, the others may be set to no effect.
var loggers = []string{
	"a2a", "admin", "ai_protocol_manager", "alternate_protocols_cache", "aws", "assert", "backtrace", "basic_auth", "cache_filter", "client",
	"config", "connection", "conn_handler", "compression", "credential_injector", "decompression", "dns", "dubbo", "envoy_bug", "ext_authz",
	"ext_proc", "rocketmq", "file", "filter", "forward_proxy", "geolocation", "grpc", "happy_eyeballs", "hc", "health_checker", "http", "http2",
	"hystrix", "init", "io", "jwt", "json_rpc", "kafka", "key_value_store", "lua", "local_rate_limit", "main", "matcher", "mcp", "misc", "mongo",
	"multi_connection", "notification", "oauth2", "quic", "quic_stream", "pool", "rate_limit_quota", "rbac", "rds", "redis", "router", "runtime",
	"stats", "secret", "sse", "tap", "testing", "thrift", "tracing", "upstream", "udp", "wasm", "websocket", "golang", "stats_sinks",
	"dynamic_modules", "ip_tagging",
}

// levelNames maps Envoy's level names to those of package logging.
var levelNames = map[string]string{
	"trace": "debug", "debug": "debug", "info": "info", "warning": "warn", "warn": "warn", "error": "error", "critical": "fatal", "off": "none",
}

// levels remembers what was asked for in Envoy's words, which know one level more.
type levels struct {
	mu    sync.Mutex
	all   string
	named map[string]string
}

// SetLevel puts a level given on the command line in force: for all loggers, or for
// the named one. It reports false for an unknown name or level.
func (s *Server) SetLevel(logger, level string) bool {
	own, known := levelNames[level]
	if !known || logger != "" && !slices.Contains(loggers, logger) {
		return false
	}
	s.level.mu.Lock()
	defer s.level.mu.Unlock()
	if logger == "" {
		s.level.all, s.level.named = level, nil
		list := []string{own}
		for _, l := range loggers {
			list = append(list, l+":"+own)
		}
		return s.view.Log.SetLevels(strings.Join(list, ",")) == nil
	}
	if s.level.named == nil {
		s.level.named = map[string]string{}
	}
	s.level.named[logger] = level
	return s.view.Log.SetLevels(logger+":"+own) == nil
}

const loggingUsage = `usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
usage: /logging?group=<group_name>:<level> (change group of loggers)
levels: trace debug info warning error critical off 
`

func loggingPage(s *Server, w http.ResponseWriter, r *http.Request) {
	if bad := s.changeLevels(r.URL.Query()); bad != "" {
		w.WriteHeader(http.StatusBadRequest)
		write(w, bad+loggingUsage)
	}
	s.writeLoggers(w)
}

// changeLevels does what one parameter says.
func (s *Server) changeLevels(q url.Values) (bad string) {
	if len(q) > 1 {
		return "error: invalid number of parameters\n\n"
	}
	for key, values := range q {
		switch value := values[0]; key {
		case "level":
			if value == "" {
				return ""
			}
			return s.setLevels(map[string]string{"": value})
		case "paths":
			return s.setPaths(value)
		case "group":
			return "error: group parameter requires fine-grain logging to be enabled\n\n"
		default:
			return s.setLevels(map[string]string{key: value})
		}
	}
	return ""
}

func (s *Server) setPaths(list string) string {
	asked := map[string]string{}
	for item := range strings.SplitSeq(list, ",") {
		name, level, found := strings.Cut(item, ":")
		if !found || name == "" || level == "" {
			return "error: empty logger name or empty logger level\n\n"
		}
		asked[name] = level
	}
	return s.setLevels(asked)
}

// setLevels checks all before it changes any.
func (s *Server) setLevels(asked map[string]string) string {
	for name, level := range asked {
		if levelNames[level] == "" {
			return "error: unknown logger level\n\n"
		}
		if name != "" && !slices.Contains(loggers, name) {
			return "error: unknown logger name\n\n"
		}
	}
	for name, level := range asked {
		s.SetLevel(name, level)
	}
	return ""
}

func (s *Server) writeLoggers(w http.ResponseWriter) {
	s.level.mu.Lock()
	defer s.level.mu.Unlock()
	write(w, "active loggers:\n")
	for _, name := range loggers {
		level := s.level.named[name]
		if level == "" {
			level = s.level.all
		}
		if level == "" {
			level = "info"
		}
		if level == "warn" {
			level = "warning"
		}
		write(w, "  "+name+": "+level+"\n")
	}
	write(w, "\n")
}
