package admin

import (
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
)

// loggers are the names that Envoy has and istioctl offers; what this proxy logs is
// under some of them, the others may be set to no effect.
var loggers = []string{
	"admin", "alternate_protocols_cache", "aws", "assert", "backtrace", "basic_auth", "cache_filter", "client", "config", "connection",
	"conn_handler", "compression", "credential_injector", "decompression", "dns", "dubbo", "dynamic_modules", "envoy_bug", "ext_authz",
	"ext_proc", "file", "filter", "forward_proxy", "geolocation", "golang", "grpc", "happy_eyeballs", "hc", "health_checker", "http", "http2",
	"hystrix", "init", "io", "jwt", "kafka", "key_value_store", "lua", "main", "matcher", "misc", "mongo", "multi_connection", "oauth2",
	"pool", "quic", "quic_stream", "rate_limit_quota", "rbac", "rds", "redis", "rocketmq", "router", "runtime", "secret", "stateful_session",
	"stats", "tap", "testing", "tcp", "thrift", "tracing", "udp", "upstream", "wasm", "websocket",
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
levels: trace debug info warning error critical off 
`

func loggingPage(s *Server, w http.ResponseWriter, r *http.Request) {
	var bad strings.Builder
	for key, values := range r.URL.Query() {
		switch key {
		case "level":
			bad.WriteString(s.setLevels(map[string]string{"": values[0]}))
		case "paths":
			bad.WriteString(s.setPaths(values[0]))
		default:
			bad.WriteString(s.setLevels(map[string]string{key: values[0]}))
		}
	}
	if bad.Len() > 0 {
		w.WriteHeader(http.StatusBadRequest)
		write(w, bad.String()+loggingUsage)
	}
	s.writeLoggers(w)
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
	names := append([]string{}, loggers...)
	sort.Strings(names)
	write(w, "active loggers:\n")
	for _, name := range names {
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
