package main

import (
	"strings"
	"unicode/utf8"
)

// table is a Markdown table that is readable as plain text.
type table struct {
	header []string
	rows   [][]string // each as long as header
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// String aligns the first column to the left and the others to the right.
func (t *table) String() string {
	widths := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(escape(cell)), 3)
		}
	}
	var b strings.Builder
	writeRow(&b, t.header, widths)
	for i, w := range widths {
		if i == 0 {
			b.WriteString("| " + strings.Repeat("-", w) + " |")
			continue
		}
		b.WriteString(" " + strings.Repeat("-", w-1) + ": |")
	}
	b.WriteByte('\n')
	for _, row := range t.rows {
		writeRow(&b, row, widths)
	}
	return b.String()
}

func writeRow(b *strings.Builder, row []string, widths []int) {
	b.WriteByte('|')
	for i, cell := range row {
		cell = escape(cell)
		padding := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
		if i == 0 {
			b.WriteString(" " + cell + padding + " |")
			continue
		}
		b.WriteString(" " + padding + cell + " |")
	}
	b.WriteByte('\n')
}

// escape escapes the characters that would end a cell.
func escape(cell string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(cell)
}
