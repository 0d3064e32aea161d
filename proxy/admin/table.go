package admin

// table lists the pages in the order of /help.
func table() []page {
	return []page{
		{"/", "Admin home page", nil, false, home},
		{"/certs", "print certs on machine", nil, false, certs},
		{"/clusters", "upstream cluster status", []string{
			"filter: Regular expression (Google re2) for filtering clusters by name",
		}, false, clusters},
		{"/config_dump", "dump current Envoy configs", []string{
			"resource: The resource to dump",
			"mask: The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask",
			"name_regex: Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource and mask query parameters.",
			"include_eds: Dump currently loaded configuration including EDS. See the response definition for more information",
		}, false, configDump},
		{"/contention", "dump current Envoy mutex contention stats (if enabled)", nil, false, contention},
		{"/drain_listeners", "drain listeners", []string{
			"graceful: When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is configurable via server options or CLI",
			"skip_exit: When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect when this is set, since the drain period only delays stopping the listeners",
			"inboundonly: Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is inbound or outbound.",
		}, true, drainListeners},
		{"/healthcheck/fail", "cause the server to fail health checks", nil, true, failHealthchecks},
		{"/healthcheck/ok", "cause the server to pass health checks", nil, true, passHealthchecks},
		{"/heap_dump", "dump current Envoy heap (if supported)", nil, false, heapDump},
		{"/help", "print out list of admin commands", nil, false, help},
		{"/hot_restart_version", "print the hot restart compatibility version", nil, false, hotRestartVersion},
		{"/init_dump", "dump current Envoy init manager information (experimental)", []string{
			"mask: The desired component to dump unready targets. The mask is parsed as a Protobuf::FieldMask. For example, get the unready targets of all listeners with /init_dump?mask=listener`",
		}, false, initDump},
		{"/listeners", "print listener info", []string{"format: File format to use; One of (text, json)"}, false, listeners},
		{"/logging", "query/change logging levels", []string{
			"paths: Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>. If fine grain logging is enabled, use __FILE__ or a glob experision as the logger name. For example, source/common*:warning",
			"group: Change given logger group to desired level, set to <logger_group_name>:<desired_level>. logger_group_name must be a logger name.",
			"level: desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, error, critical, off)",
		}, true, loggingPage},
		{"/memory", "print current allocation/heap usage", nil, false, memory},
		{"/quitquitquit", "exit the server", nil, true, quit},
		{"/ready", "print server state, return 200 if LIVE, otherwise return 503", nil, false, ready},
		{"/reopen_logs", "reopen access logs", nil, true, reopenLogs},
		{"/reset_counters", "reset all counters to zero", nil, true, resetCounters},
		{"/runtime", "print runtime values", nil, false, runtimePage},
		{"/runtime_modify", "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an empty string as the value. Note that deletion only applies to overrides added via this endpoint; values loaded from disk can be modified via override but not deleted. E.g. ?key1=value1&key2=value2...", nil, true, modifyRuntime},
		{"/server_info", "print server version/status information", nil, false, serverInfo},
		{"/stats", "print server stats", []string{
			"usedonly: Only include stats that have been written by system since restart",
			"filter: Regular expression (Google re2) for filtering stats",
			"invert_filter: Invert the filter regex",
			"format: Format to use; One of (html, active-html, text, json)",
			"type: Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
			"histogram_buckets: Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)",
		}, false, statsPage},
		{"/stats/prometheus", "print server stats in prometheus format", []string{
			"usedonly: Only include stats that have been written by system since restart",
			"text_readouts: Render text_readouts as new gaugues with value 0 (increases Prometheus data size)",
			"filter: Regular expression (Google re2) for filtering stats",
			"invert_filter: Invert the filter regex",
			"histogram_buckets: Histogram bucket display mode; One of (cumulative, summary)",
		}, false, prometheus},
		{"/stats/recentlookups", "Show recent stat-name lookups", nil, false, recentLookups},
		{"/stats/recentlookups/clear", "clear list of stat-name lookups and counter", nil, true, clearLookups},
		{"/stats/recentlookups/disable", "disable recording of reset stat-name lookup names", nil, true, trackLookups(false)},
		{"/stats/recentlookups/enable", "enable recording of reset stat-name lookup names", nil, true, trackLookups(true)},
	}
}
