package cluster

import (
	"math"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// rated is a host with its success rate of an interval, in percent.
type rated struct {
	host   *host
	rate   float64
	volume uint64
}

// Rates are the success rates of the interval of outlier detection that has passed, in
// percent: those of answers, and of what failed before there was one (local origin).
type Rates struct {
	// Average and Threshold are the mean of all endpoints with enough requests, and below
	// what an endpoint is ejected; -1 where they were too few.
	Average, Threshold [2]float64
	// Endpoints are those with enough requests.
	Endpoints [2]map[*endpoint.Endpoint]float64
}

func noRates() *Rates { return &Rates{Average: [2]float64{-1, -1}, Threshold: [2]float64{-1, -1}} }

// judge ejects by the rates of the interval that has passed; busy is set when there was
// any traffic. The caller holds mu.
func (c *Cluster) judge(busy *bool) (ejected bool) {
	external := c.rates(busy, func(x *outlierState) *tally { return &x.external })
	local := c.rates(busy, func(x *outlierState) *tally { return &x.local })
	c.outlier.rates = noRates()
	ejected = c.judgeBy(external, 0)
	if c.config.outlier.split {
		ejected = c.judgeBy(local, 1) || ejected
	}
	return ejected
}

// rates takes what hosts that are not ejected have counted, and begins anew.
func (c *Cluster) rates(busy *bool, of func(*outlierState) *tally) (list []rated) {
	for _, h := range c.order {
		t := of(&h.outlier)
		total, good := t.total.Swap(0), t.good.Swap(0)
		if total == 0 {
			continue
		}
		*busy = true
		if h.ep.Unhealthy.Load()&endpoint.FailedOutlier == 0 {
			list = append(list, rated{h, 100 * float64(good) / float64(total), total})
		}
	}
	return list
}

// judgeBy ejects the hosts whose success rate is far below the mean of all, and those
// that fail too often by themselves. origin is 0 for answers, 1 for what is of local origin.
func (c *Cluster) judgeBy(list []rated, origin int) (ejected bool) {
	o, shown := c.config.outlier, c.outlier.rates
	if n := len(c.order); n < o.rate.hosts && n < o.percent.hosts {
		return false
	}
	for _, r := range list {
		if r.volume >= min(o.rate.volume, o.percent.volume) {
			if shown.Endpoints[origin] == nil {
				shown.Endpoints[origin] = map[*endpoint.Endpoint]float64{}
			}
			shown.Endpoints[origin][r.host.ep] = r.rate
		}
	}
	if valid := enough(list, o.rate); valid != nil {
		mean, stdev := spread(valid)
		threshold := mean - o.stdevFactor*stdev
		shown.Average[origin], shown.Threshold[origin] = mean, threshold
		for _, r := range valid {
			if r.rate < threshold {
				ejected = c.eject(r.host, [2]int{successRate, localSuccessRate}[origin]) || ejected
			}
		}
	}
	for _, r := range enough(list, o.percent) {
		if 100-r.rate >= o.threshold {
			ejected = c.eject(r.host, [2]int{failurePercent, localFailurePercent}[origin]) || ejected
		}
	}
	return ejected
}

// enough are the hosts with enough requests, nil when they are too few.
func enough(list []rated, s statistic) (valid []rated) {
	for _, r := range list {
		if r.volume >= s.volume {
			valid = append(valid, r)
		}
	}
	if len(valid) < s.hosts {
		return nil
	}
	return valid
}

func spread(list []rated) (mean, stdev float64) {
	for _, r := range list {
		mean += r.rate
	}
	mean /= float64(len(list))
	for _, r := range list {
		stdev += (r.rate - mean) * (r.rate - mean)
	}
	return mean, math.Sqrt(stdev / float64(len(list)))
}
