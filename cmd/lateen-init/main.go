// Command lateen-init makes the root of a container and becomes its program. lateen-engine starts
// it; by hand it does nothing.
package main

import "github.com/lateen-mesh/lateen/local/container/stage"

func main() { stage.Main() }
