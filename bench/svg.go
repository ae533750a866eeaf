package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
)

// The sizes in the picture, in units of its view box.
const (
	svgWidth  = 900
	svgLabels = 300 // width of the names
	svgRow    = 20  // height of a bar with the space below it
	svgBar    = 14
	svgHead   = 30 // height of a heading
	svgMargin = 16
	svgValues = 80 // width of the numbers beside the longest bar
)

// drawSpeed draws the runs/s of all contenders as bars on a logarithmic scale, one panel for each number
// of runs in flight.
func drawSpeed(results []*result) []byte {
	shown := selectResults(results, func(r *result) bool { return r.unit == "" })
	scale := newLogScale(selectResults(shown, func(r *result) bool { return len(r.samples) > 0 }))
	var body bytes.Buffer
	y := drawLegend(&body, svgMargin)
	for _, flight := range flightsOf(shown) {
		panel := selectResults(shown, func(r *result) bool { return r.flight == flight })
		y = drawPanel(&body, flight, panel, scale, y)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title">`,
		svgWidth, y+svgMargin)
	fmt.Fprintf(&b, "\n<title id=\"title\">Runs of five steps per second, on a logarithmic scale</title>\n%s", svgStyle)
	b.Write(body.Bytes())
	fmt.Fprintf(&b, "</svg>\n")
	return b.Bytes()
}

// svgStyle has colours that can be told apart on a light and on a dark background, and by colour-blind readers.
const svgStyle = `<style>
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.head { font-weight: 600; font-size: 14px; }
.grid { stroke: #8b949e; stroke-opacity: .35; }
.range { stroke: #1f2328; stroke-width: 1.5; }
.floor { fill: #8c959f; }
.memory { fill: #54aeff; }
.durable { fill: #d4a72c; }
.ours { stroke: #1f2328; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .range, .ours { stroke: #e6edf3; }
}
</style>
`

// drawLegend draws the meaning of the colours below y, and returns the lower edge of the legend.
func drawLegend(b *bytes.Buffer, y int) int {
	x := svgLabels
	for _, entry := range []struct {
		class class
		text  string
	}{{floor, "a limit of the machine"}, {memory, "in memory"}, {durable, "synced before acknowledged"}} {
		fmt.Fprintf(b, "<circle class=\"%s\" cx=\"%d\" cy=\"%d\" r=\"6\"/>\n", entry.class, x+6, y+6)
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">%s</text>\n", x+18, y+10, entry.text)
		x += 40 + 7*len(entry.text)
	}
	return y + svgHead
}

// drawPanel draws the bars for one number of runs in flight below y, and returns the lower edge of the panel.
func drawPanel(b *bytes.Buffer, flight int, results []*result, scale logScale, y int) int {
	fmt.Fprintf(b, "<text class=\"head\" x=\"%d\" y=\"%d\">%s in flight, runs/s</text>\n",
		svgMargin, y+svgHead/2, grouped(int64(flight)))
	y += svgHead
	bottom := y + len(results)*svgRow
	for power := scale.low; power <= scale.high; power++ {
		x := scale.x(math.Pow10(power))
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", x, x, y-4, bottom)
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
			x, bottom+12, grouped(int64(math.Pow10(power))))
	}
	for _, r := range results {
		drawBar(b, r, scale, y)
		y += svgRow
	}
	return bottom + svgHead
}

func drawBar(b *bytes.Buffer, r *result, scale logScale, y int) {
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", svgLabels-8, y+svgBar-3, xmlText(r.name))
	if len(r.samples) == 0 {
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\">left out</text>\n", svgLabels+6, y+svgBar-3)
		return
	}
	class, rate := r.class.String(), r.rate()
	if r.name == conveyorMemory.name || r.name == conveyorFile.name {
		class += " ours"
	}
	start, middle := float64(svgLabels), float64(y)+float64(svgBar)/2
	fmt.Fprintf(b, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n",
		class, start, y, scale.x(rate.median)-start, svgBar)
	fmt.Fprintf(b, "<line class=\"range\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n",
		scale.x(rate.min), scale.x(rate.max), middle, middle)
	fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\">%s</text>\n", scale.x(rate.max)+6, y+svgBar-3, number(rate.median))
}

func xmlText(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer returns no error
	return b.String()
}

// logScale places values between two powers of ten.
type logScale struct{ low, high int }

// newLogScale returns a scale that contains all rates.
func newLogScale(results []*result) logScale {
	lowest, highest := 1., 10.
	for i, r := range results {
		rate := r.rate()
		if i == 0 {
			lowest = rate.min
		}
		lowest, highest = min(lowest, rate.min), max(highest, rate.max)
	}
	return logScale{low: int(math.Floor(math.Log10(lowest))), high: int(math.Ceil(math.Log10(highest)))}
}

func (s logScale) x(value float64) float64 {
	const width = svgWidth - svgLabels - svgValues
	return svgLabels + width*(math.Log10(value)-float64(s.low))/float64(s.high-s.low)
}
