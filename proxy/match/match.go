// Package match compiles the matchers of xDS: strings, headers, query parameters,
// address ranges and metadata values.
//
// Each matcher is built once by its New function, which refuses what it does not
// know by name, and is then immutable. Matching reads bytes, allocates nothing and
// may be done by many goroutines. Each matcher's String method says what it wants,
// for explanations and traces of decisions.
package match
