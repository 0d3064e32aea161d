package config

import telemetry "istio.io/api/telemetry/v1alpha1"

func validateTelemetry(p place, o *Config) {
	t := o.Spec.(*telemetry.Telemetry)
	p.attachment(t)
	for i, m := range t.Metrics {
		validateMetrics(p.at("metrics", i), m)
	}
	if len(t.Tracing) > 1 {
		p.field("tracing").warnf("several entries are not supported: the first one counts")
	}
	for i, r := range t.Tracing {
		validateTracing(p.at("tracing", i), r)
	}
	for i, l := range t.AccessLogging {
		p.at("accessLogging", i).providers(l.Providers)
	}
}

func (p place) providers(all []*telemetry.ProviderRef) {
	for i, ref := range all {
		p.at("providers", i).field("name").required(ref.Name)
	}
}

func validateMetrics(p place, m *telemetry.Metrics) {
	p.providers(m.Providers)
	p.field("reportingInterval").wrong(positive(m.ReportingInterval))
	for i, o := range m.Overrides {
		at := p.at("overrides", i)
		if custom, ok := o.GetMatch().GetMetricMatch().(*telemetry.MetricSelector_CustomMetric); ok {
			at.field("match.customMetric").required(custom.CustomMetric)
		}
		for _, name := range sortedKeys(o.TagOverrides) {
			validateTagOverride(at.field("tagOverrides").key(name), name, o.TagOverrides[name])
		}
	}
}

func validateTagOverride(p place, name string, t *telemetry.MetricsOverrides_TagOverride) {
	if name == "" {
		p.warnf("the name of the tag is empty")
	}
	switch {
	case t.Operation == telemetry.MetricsOverrides_TagOverride_UPSERT && t.Value == "":
		p.field("value").errorf("required for operation UPSERT")
	case t.Operation == telemetry.MetricsOverrides_TagOverride_REMOVE && t.Value != "":
		p.field("value").errorf("cannot be set for operation REMOVE")
	}
}

func validateTracing(p place, t *telemetry.Tracing) {
	if len(t.Providers) > 1 {
		p.field("providers").warnf("several providers are not supported: the first one counts")
	}
	p.providers(t.Providers)
	if v := t.GetRandomSamplingPercentage().GetValue(); v < 0 || v > 100 {
		p.field("randomSamplingPercentage").errorf("must be 0–100, got %v", v)
	}
	for _, name := range sortedKeys(t.CustomTags) {
		at := p.field("customTags").key(name)
		if name == "" {
			at.errorf("the name of the tag must not be empty")
		}
		switch tag := t.CustomTags[name].GetType().(type) {
		case *telemetry.Tracing_CustomTag_Literal:
			at.field("literal.value").required(tag.Literal.GetValue())
		case *telemetry.Tracing_CustomTag_Environment:
			at.field("environment.name").required(tag.Environment.GetName())
		case *telemetry.Tracing_CustomTag_Header:
			at.field("header.name").required(tag.Header.GetName())
		case *telemetry.Tracing_CustomTag_Formatter:
			at.field("formatter.value").required(tag.Formatter.GetValue())
		}
	}
}
