package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Options are the command line's settings, with Envoy's names and defaults.
type Options struct {
	ConfigPath  string // -c, --config-path
	ConfigYAML  string // --config-yaml
	Concurrency int    // --concurrency; 0 is the number of CPUs

	ServiceNode, ServiceCluster, ServiceZone string // override the bootstrap's node

	LogLevel          string // -l, --log-level: trace … off
	ComponentLogLevel string // --component-log-level: name:level,…
	LogPath           string // --log-path; "" is stderr
	LogFormat         string // --log-format, kept for /server_info only

	BaseID           int  // --base-id
	DynamicBaseID    bool // --use-dynamic-base-id
	RestartEpoch     int  // --restart-epoch
	DisableRestart   bool // --disable-hot-restart: no lock on the base id
	ParentShutdown   time.Duration
	DrainTime        time.Duration
	DrainImmediate   bool          // --drain-strategy immediate
	FlushInterval    time.Duration // --file-flush-interval-msec
	Mode             string        // serve, validate
	AdminAddressPath string
	LocalIPVersion   string // v4, v6
	DialSocket       string // --dial-socket: who connects to addresses beyond the mesh; "" is nobody
	PublishSocket    string // --publish-socket: who has the machine's sockets for published ports; "" is nobody

	AllowUnknownStatic, RejectUnknownDynamic, IgnoreUnknownDynamic bool

	Help, Version, HotRestartVersion bool

	// Stop, when closed, ends a running proxy at once. May be nil.
	Stop <-chan struct{}
	// Reopen has the proxy open its log files anew. May be nil.
	Reopen <-chan struct{}
}

// DefaultOptions are Envoy's.
func DefaultOptions() Options {
	return Options{
		LogLevel: "info", DrainTime: 600 * time.Second, ParentShutdown: 900 * time.Second, FlushInterval: 10 * time.Second,
		Mode: "serve", LocalIPVersion: "v4",
	}
}

// A flag is one argument: exactly one of its targets is set.
type flag struct {
	name, short, help string
	text              *string
	number            *int
	duration          *time.Duration
	unit              time.Duration
	yes               *bool
}

// flags is the ordered table of what the command line understands. Flags without a
// target are Envoy's that change nothing here.
func (o *Options) flags() []flag {
	ignored, nothing := new(string), new(bool)
	return []flag{
		{name: "config-path", short: "c", help: "Path to configuration file", text: &o.ConfigPath},
		{name: "config-yaml", help: "Inline YAML configuration, merges with the contents of --config-path", text: &o.ConfigYAML},
		{name: "concurrency", help: "# of worker threads to run", number: &o.Concurrency},
		{name: "service-node", help: "Node name", text: &o.ServiceNode},
		{name: "service-cluster", help: "Cluster name", text: &o.ServiceCluster},
		{name: "service-zone", help: "Zone name", text: &o.ServiceZone},
		{name: "log-level", short: "l", help: "Log levels: [trace][debug][info][warning|warn][error][critical][off]. Default is [info]", text: &o.LogLevel},
		{name: "component-log-level", help: "Comma-separated list of component log levels. For example upstream:debug,config:trace", text: &o.ComponentLogLevel},
		{name: "log-path", help: "Path to logfile", text: &o.LogPath},
		{name: "log-format", help: "Accepted; the log's format is fixed", text: &o.LogFormat},
		{name: "base-id", help: "Base ID so that multiple proxies can run on the same host if needed", number: &o.BaseID},
		{name: "use-dynamic-base-id", help: "The server chooses a base ID dynamically", yes: &o.DynamicBaseID},
		{name: "restart-epoch", help: "Hot restart epoch #; only 0 is supported", number: &o.RestartEpoch},
		{name: "disable-hot-restart", help: "Disable hot restart functionality", yes: &o.DisableRestart},
		{name: "parent-shutdown-time-s", help: "Hot restart parent shutdown time in seconds", duration: &o.ParentShutdown, unit: time.Second},
		{name: "drain-time-s", help: "LDS removal and shutdown drain time in seconds", duration: &o.DrainTime, unit: time.Second},
		{name: "drain-strategy", help: "One of 'gradual' (default) or 'immediate'", text: new(string)},
		{name: "file-flush-interval-msec", help: "Interval for log flushing in msec", duration: &o.FlushInterval, unit: time.Millisecond},
		{name: "file-flush-min-size-kb", help: "Minimum size in KB for log flushing", text: ignored},
		{name: "mode", help: "One of 'serve' (default; validate configs and then serve traffic normally) or 'validate' (validate configs and exit)", text: &o.Mode},
		{name: "admin-address-path", help: "Admin address path", text: &o.AdminAddressPath},
		{name: "local-address-ip-version", help: "The local IP address version (v4 or v6)", text: &o.LocalIPVersion},
		{name: "dial-socket", help: "Unix socket that is asked for connections to addresses outside of the mesh", text: &o.DialSocket},
		{name: "publish-socket", help: "Unix socket that is asked for the listening sockets of published ports", text: &o.PublishSocket},
		{name: "allow-unknown-static-fields", help: "Allow unknown fields in static configuration", yes: &o.AllowUnknownStatic},
		{name: "allow-unknown-fields", help: "Allow unknown fields in static configuration (DEPRECATED)", yes: &o.AllowUnknownStatic},
		{name: "reject-unknown-dynamic-fields", help: "Reject unknown fields in dynamic configuration", yes: &o.RejectUnknownDynamic},
		{name: "ignore-unknown-dynamic-fields", help: "Ignore unknown fields in dynamic configuration", yes: &o.IgnoreUnknownDynamic},
		{name: "base-id-path", help: "Path to which the base ID is written", text: ignored},
		{name: "skip-hot-restart-on-no-parent", help: "Accepted, no effect", yes: nothing},
		{name: "skip-hot-restart-parent-stats", help: "Accepted, no effect", yes: nothing},
		{name: "skip-deprecated-logs", help: "Accepted, no effect", yes: nothing},
		{name: "log-format-escaped", help: "Accepted, no effect", yes: nothing},
		{name: "enable-fine-grain-logging", help: "Accepted, no effect", yes: nothing},
		{name: "enable-mutex-tracing", help: "Accepted, no effect", yes: nothing},
		{name: "cpuset-threads", help: "Accepted: the CPUs that may be used count anyway", yes: nothing},
		{name: "enable-core-dump", help: "Accepted, no effect", yes: nothing},
		{name: "socket-path", help: "Accepted, no effect", text: ignored},
		{name: "socket-mode", help: "Accepted, no effect", text: ignored},
		{name: "hot-restart-version", help: "Hot restart compatibility version", yes: &o.HotRestartVersion},
		{name: "version", help: "Displays version information and exits", yes: &o.Version},
		{name: "help", short: "h", help: "Displays usage information and exits", yes: &o.Help},
	}
}

// ParseArgs reads a command line (without the program's name). Errors are worded as
// Envoy's.
func ParseArgs(args []string) (Options, error) {
	o := DefaultOptions()
	flags := o.flags()
	strategy := ""
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		f := findFlag(flags, name)
		if f == nil {
			return o, fmt.Errorf("PARSE ERROR: Argument: %s\n             Couldn't find match for argument", args[0])
		}
		args = args[1:]
		if f.yes != nil {
			*f.yes = true
			continue
		}
		if !joined {
			if len(args) == 0 {
				return o, fmt.Errorf("PARSE ERROR: Argument: %s\n             Missing a value for this argument!", f.label()) //nolint:revive,staticcheck // Envoy's words
			}
			value, args = args[0], args[1:]
		}
		if err := f.set(value); err != nil {
			return o, err
		}
		if f.name == "drain-strategy" {
			strategy = value
		}
	}
	return o, o.check(strategy)
}

func (f *flag) label() string {
	if f.short != "" {
		return "-" + f.short + " (--" + f.name + ")"
	}
	return "(--" + f.name + ")"
}

func findFlag(flags []flag, arg string) *flag {
	for i := range flags {
		f := &flags[i]
		if arg == "--"+f.name || f.short != "" && arg == "-"+f.short {
			return f
		}
	}
	return nil
}

func (f *flag) set(value string) error {
	if f.text != nil {
		*f.text = value
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return fmt.Errorf("PARSE ERROR: Argument: %s\n             Couldn't read argument value from string '%s'", f.label(), value)
	}
	if f.number != nil {
		*f.number = int(n)
	} else {
		*f.duration = time.Duration(n) * f.unit
	}
	return nil
}

func (o *Options) check(strategy string) error {
	switch {
	case o.Mode != "serve" && o.Mode != "validate":
		return fmt.Errorf("error: unknown mode '%s'", o.Mode)
	case !strings.Contains(" trace debug info warning warn error critical off ", " "+o.LogLevel+" ") || o.LogLevel == "":
		return fmt.Errorf("error: invalid log level specified '%s'", o.LogLevel)
	case o.LocalIPVersion != "v4" && o.LocalIPVersion != "v6":
		return fmt.Errorf("error: unknown IP address version '%s'", o.LocalIPVersion)
	case strategy != "" && strategy != "gradual" && strategy != "immediate":
		return fmt.Errorf("error: unknown drain-strategy '%s'", strategy)
	case o.RestartEpoch != 0:
		return fmt.Errorf("error: --restart-epoch %d: hot restart is not supported, only epoch 0", o.RestartEpoch)
	}
	o.DrainImmediate = strategy == "immediate"
	return nil
}

// Usage is the text of --help.
func Usage(program string) string {
	var o Options
	var b strings.Builder
	b.WriteString("\nUSAGE: \n\n   " + program + "  [-c <string>] [--config-yaml <string>] [...]\n\nWhere: \n\n")
	for _, f := range o.flags() {
		b.WriteString("   ")
		if f.short != "" {
			b.WriteString("-" + f.short + f.placeholder() + ",  ")
		}
		b.WriteString("--" + f.name + f.placeholder() + "\n     " + f.help + "\n\n")
	}
	return b.String()
}

func (f *flag) placeholder() string {
	switch {
	case f.yes != nil:
		return ""
	case f.text != nil:
		return " <string>"
	}
	return " <uint32_t>"
}
