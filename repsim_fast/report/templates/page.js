"use strict";
(async () => {
  const $ = (id) => document.getElementById(id);
  const UNKNOWN = 0xffff;
  const NARROW = 600; // pixels: a phone, where names of layers leave no room for the map

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }
  const text = async (id) => new TextDecoder().decode(await unpacked(id));

  const LINE = 13; // pixels that a label takes

  let results, colours, cells;
  try {
    const library = document.createElement("script");
    library.textContent = await text("library");
    document.head.append(library);
    ({ results, colours } = JSON.parse(await text("data")));
    cells = new Uint16Array(await unpacked("cells"));
  } catch (error) {
    $("trouble").textContent = `The heat maps need a newer browser (${error}); all else is below.`;
    $("trouble").hidden = false;
    return;
  }

  // What is drawn
  const state = { result: results[0], row: 0, column: 0, show: "value", filter: [] };
  const cursor = { i: 0, j: 0 };
  let view; // of the map that is shown: its layers and values

  function cell(result, field, i, j) {
    const place = result.fields[field];
    if (!place) return NaN;
    const n = result.size;
    const [a, b] = place.symmetric && j < i ? [j, i] : [i, j];
    const k = place.symmetric ? a * n - (a * (a - 1)) / 2 + b - a : a * n + b;
    const code = cells[place.offset + k];
    return code === UNKNOWN ? NaN : place.low + code * place.step;
  }

  const starts = (result) => {
    let sum = 0;
    return result.layers.map((names) => (sum += names.length) - names.length);
  };

  function shownValue(result, i, j) {
    if (state.show === "error") return cell(result, "error", i, j);
    const value = cell(result, "value", i, j);
    return state.show === "minus" ? value - cell(result, "chance", i, j) : value;
  }

  /** Numbers of a model's layers that the filter leaves. */
  function layersShown(result, model) {
    const all = result.layers[model].map((_, k) => k);
    if (!state.filter.length) return all;
    return all.filter((k) => state.filter.some((p) => p.test(result.layers[model][k])));
  }

  function patterns(wanted) {
    const parts = wanted.split(",").map((part) => part.trim()).filter(Boolean);
    const escaped = (part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*");
    return parts.map((part) => new RegExp(escaped(part), "i"));
  }

  const number = (value, digits = 3) => (Number.isFinite(value) ? value.toFixed(digits) : "none");
  // What plotly shows of a name is text: it knows a few tags and entities.
  const plain = (name) => String(name).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/[\n\r]/g, " ");
  /** A name of at most so many letters: whole words of its path, the number of its block first. */
  function short(name, length) {
    if (name.length <= length) return name;
    const parts = name.split(".");
    const block = parts.findIndex((part) => /\d/.test(part));
    const heads = block < 0 ? [""] : [parts.slice(0, block + 1).join("."), parts[block], ""];
    for (const head of heads) {
      for (let k = Math.max(block, 0) + 1; k < parts.length; k++) {
        const words = `${head}…${parts.slice(k).join(".")}`;
        if (words.length <= length) return words;
      }
    }
    const half = Math.floor((length - 1) / 2);
    return `${name.slice(0, half)}…${name.slice(-half)}`;
  }
  const what = () => {
    const { measure } = state.result;
    return { value: measure, error: `standard error of ${measure}`, minus: `${measure} minus chance level` }[state.show];
  };

  /** What is known of a cell, one line each. */
  function about(i, j) {
    const { result, row, column } = state;
    const [a, b] = [view.rowStart + i, view.columnStart + j];
    const value = cell(result, "value", a, b);
    const error = cell(result, "error", a, b);
    const lines = [
      `${result.models[row]}: ${result.layers[row][i]}`,
      `${result.models[column]}: ${result.layers[column][j]}`,
      `${result.measure} ${number(value)}` + (Number.isFinite(error) ? ` ± ${error.toPrecision(2)}` : ""),
    ];
    if (Number.isFinite(error) && result.quantile !== null) {
      const half = result.quantile * error;
      lines.push(`95 % interval ${number(value - half)} to ${number(value + half)}`);
    }
    const chance = cell(result, "chance", a, b);
    if (Math.abs(chance) >= 0.0005) lines.push(`chance level ${number(chance)}`);
    return lines;
  }

  // Looks
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
  const CONFIG = {
    displaylogo: false, responsive: false, scrollZoom: false, doubleClick: "reset",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };
  const BARE = { ...CONFIG, displayModeBar: false };
  function layout(more) {
    const axis = { gridcolor: css("--line"), zeroline: false, automargin: true, linecolor: css("--line") };
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: "zoom",
      font: { color: css("--text"), family: "system-ui, sans-serif", size: 12 },
      margin: { l: 48, r: 8, t: 36, b: 48 },
      hoverlabel: { align: "left", namelength: -1 },
      xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
    };
  }

  /** Names of the layers where there is room for them, else the stages, else every k-th name. */
  function ticks(numbers, names, stages, range, pixels, crowded) {
    const low = Math.max(0, Math.ceil(range[0]));
    const high = Math.min(numbers.length - 1, Math.floor(range[1]));
    const count = high - low + 1;
    const longest = innerWidth < NARROW ? 14 : 28;
    const every = Math.max(1, Math.ceil((count * LINE) / pixels));
    const at = [];
    const labels = [];
    if (crowded && stages) {
      const runs = [];
      for (let k = low; k <= high; ) {
        let end = k;
        while (end < high && stages[numbers[end + 1]] === stages[numbers[k]]) end++;
        runs.push({ middle: (k + end) / 2, size: end - k, name: stages[numbers[k]] });
        k = end + 1;
      }
      // The large ones first: all blocks or every k-th, a stem where it has room beside them.
      for (const { middle, name } of runs.sort((a, b) => b.size - a.size)) {
        if (at.some((other) => (Math.abs(other - middle) * pixels) / count < LINE)) continue;
        at.push(middle);
        labels.push(plain(short(name, longest)));
      }
    } else {
      for (let k = low; k <= high; k += every) {
        at.push(k);
        labels.push(plain(short(names[numbers[k]], longest)));
      }
    }
    return { tickmode: "array", tickvals: at, ticktext: labels };
  }

  /** Where one stage ends and the next one begins. */
  function borders(numbers, stages) {
    if (!stages) return [];
    return numbers.flatMap((n, k) => (k && stages[n] !== stages[numbers[k - 1]] ? [k - 0.5] : []));
  }

  function axes(ranges) {
    const { result, row, column } = state;
    const { rows, columns } = view;
    const pixels = { x: $("map").clientWidth * 0.7, y: view.height * 0.8 };
    const crowded = ["x", "y"].some((axis) => (ranges[axis][1] - ranges[axis][0]) * LINE > pixels[axis]);
    const x = ticks(columns, result.short[column], result.stages[column], ranges.x, pixels.x, crowded);
    const y = ticks(rows, result.short[row], result.stages[row], ranges.y, pixels.y, crowded);
    return { x, y };
  }

  function limits() {
    const { result } = state;
    const finite = view.z.flat().filter((v) => v !== null);
    // Layers with themselves, all 1 or 0, would hide what differs.
    const others = view.z.flatMap((line, i) =>
      line.filter((v, j) => v !== null && !(state.row === state.column && view.rows[i] === view.columns[j])));
    const of = others.length && state.show !== "error" ? others : finite;
    const extremes = (list) => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    const [low, high] = extremes(of.length ? of : [0, 1]);
    if ($("scale").value === "shown") return low < high ? [low, high] : [low - 0.5, high + 0.5];
    if (state.show === "error") return [0, extremes(finite.length ? finite : [1])[1] || 1];
    if (state.show === "minus" && result.distance) return [Math.min(low, -1e-9), 0];
    return result.limits;
  }

  function drawMap() {
    const { result, row, column } = state;
    const [rows, columns] = [layersShown(result, row), layersShown(result, column)];
    const [rowStart, columnStart] = [starts(result)[row], starts(result)[column]];
    const z = rows.map((i) => columns.map((j) => {
      const value = shownValue(result, rowStart + i, columnStart + j);
      return Number.isFinite(value) ? value : null;
    }));
    const width = $("map").clientWidth;
    const height = Math.round(Math.min(Math.max((width - 150) * (rows.length / Math.max(columns.length, 1)), 240), 760));
    view = { rows, columns, rowStart, columnStart, z, height };
    cursor.i = Math.min(cursor.i, Math.max(rows.length - 1, 0));
    cursor.j = Math.min(cursor.j, Math.max(columns.length - 1, 0));
    const [zmin, zmax] = limits();
    const hover = rows.map((i) => columns.map((j) => about(i, j).map(plain).join("<br>")));
    const x = [-0.5, columns.length - 0.5];
    const y = [-0.5, rows.length - 0.5];
    const at = axes({ x, y });
    const line = { type: "line", line: { color: css("--page"), width: 1 }, layer: "above" };
    view.shapes = [
      ...borders(columns, result.stages[column]).map((k) => ({ ...line, x0: k, x1: k, y0: y[0], y1: y[1] })),
      ...borders(rows, result.stages[row]).map((k) => ({ ...line, x0: x[0], x1: x[1], y0: k, y1: k })),
    ];
    const narrow = innerWidth < NARROW;
    const trace = {
      type: "heatmap", z, zmin, zmax, text: hover, hovertemplate: "%{text}<extra></extra>",
      colorscale: state.show === "error" ? colours.viridis : colours.magma,
      colorbar: {
        title: { text: plain(what()), side: narrow ? "bottom" : "right" }, thickness: 14, outlinewidth: 0,
        ...(narrow ? { orientation: "h", y: 1.02, yanchor: "bottom", x: 0.5 } : { len: Math.min(1, 320 / height) }),
      },
    };
    const name = (model) => plain(short(result.models[model], 40));
    Plotly.react("map", [trace], layout({
      height: height + 120, plot_bgcolor: css("--unknown"), shapes: view.shapes,
      xaxis: { range: x, title: { text: `${name(column)}, depth →` }, showgrid: false, tickangle: -90, ...at.x },
      yaxis: { range: y, title: { text: `${name(row)}, depth →` }, showgrid: false, ...at.y },
    }), CONFIG);
    describeMap(zmin, zmax);
  }

  function describeMap(zmin, zmax) {
    const { result, row, column } = state;
    const values = view.z.flat().filter((v) => v !== null);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const title = row === column ? `within ${result.models[row]}` : `${result.models[row]} / ${result.models[column]}`;
    $("map-heading").textContent = title;
    const shape = `${view.rows.length} x ${view.columns.length} layers`;
    const outside = values.filter((v) => v < zmin - 1e-4 || v > zmax + 1e-4).length;
    $("map-caption").textContent = values.length
      ? `${what()}, ${shape}, mean ${number(mean)}.` +
        (outside ? ` ${outside} cells are beyond the ends of the colour scale.` : "") +
        (values.length < view.rows.length * view.columns.length ? " Grey cells have no value." : "")
      : view.rows.length && view.columns.length ? "No cell has a value." : "No layer has such a name.";
    $("map").setAttribute("aria-label", `Heat map, ${title}: ${$("map-caption").textContent}`);
  }

  /** Pairs of layers at the same relative depth; within a model, of each layer and the next. */
  function path() {
    const { result, row, column } = state;
    const [r, c] = [result.layers[row].length, result.layers[column].length];
    const steps = Math.max(r, c);
    const pairs = row === column
      ? Array.from({ length: r - 1 }, (_, k) => [k, k + 1])
      : Array.from({ length: steps }, (_, k) => [r, c].map((n) => Math.round((k * (n - 1)) / Math.max(steps - 1, 1))));
    const [rows, columns] = [new Set(view.rows), new Set(view.columns)];
    return pairs.filter(([i, j]) => rows.has(i) && columns.has(j));
  }

  function band(x, low, high, colour) {
    const shared = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
    return [{ ...shared, y: low }, { ...shared, y: high, fill: "tonexty", fillcolor: colour + "33" }];
  }

  function profileLayout(xTitle, top, legend) {
    return layout({
      height: 300, showlegend: legend, legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
      xaxis: { title: { text: xTitle } }, yaxis: { range: [null, top], autorangeoptions: { include: 0 } },
    });
  }

  function drawDiagonal() {
    const { result, row, column } = state;
    const pairs = path();
    const same = result.layers[row].length === result.layers[column].length;
    $("diagonal-heading").textContent = row === column
      ? "How alike is each layer to the next?"
      : `How alike are layers at the same ${same ? "position" : "relative depth"}?`;
    const x = pairs.map((_, k) => k);
    const of = (field) => pairs.map(([i, j]) => cell(result, field, view.rowStart + i, view.columnStart + j));
    const [y, error] = [of("value"), of("error").map((e) => e * (result.quantile ?? NaN))];
    const hover = pairs.map(([i, j]) => about(i, j).map(plain).join("<br>"));
    const line = { x, y, text: hover, mode: "lines+markers", hovertemplate: "%{text}<extra></extra>", line: { color: PALETTE[0], width: 2 }, marker: { size: 4 } };
    const bands = error.some(Number.isFinite)
      ? band(x, y.map((v, k) => v - (error[k] || 0)), y.map((v, k) => v + (error[k] || 0)), PALETTE[0]) : [];
    Plotly.react("diagonal", [...bands, line], profileLayout("depth →", 1.02 * result.limits[1], false), BARE);
    const ends = pairs.length ? `from ${number(y[0])} at the input to ${number(y[y.length - 1])} at the output` : "no layers";
    $("diagonal").setAttribute("aria-label", `${$("diagonal-heading").textContent} ${result.measure} ${ends}`);
  }

  function drawDistance() {
    const { result, row, column } = state;
    const [low, high] = [Math.min(row, column), Math.max(row, column)];
    const wanted = [...new Set([`${row},${row}`, `${column},${column}`, `${low},${high}`])];
    const drawn = wanted.filter((pair) => result.distances[pair]);
    $("distance-part").hidden = !drawn.length;
    if (!drawn.length) return;
    const traces = drawn.flatMap((pair, k) => {
      const [i, j] = pair.split(",").map(Number);
      // A layer equals itself, which is no finding.
      const start = i === j ? 1 : 0;
      const [y, error] = result.distances[pair].map((list) => list.slice(start));
      const x = y.map((_, n) => n + start);
      const colour = PALETTE[k];
      const name = i === j ? `within ${result.models[i]}` : `${result.models[i]} / ${result.models[j]}`;
      const bands = error.some((e) => e !== null) ? band(x, y.map((v, n) => v - error[n]), y.map((v, n) => v + error[n]), colour) : [];
      const hover = y.map((v, n) => `${x[n]} apart: ${v === null ? "none" : number(v)}` + (error[n] === null ? "" : ` ± ${error[n].toPrecision(2)}`));
      return [...bands, { x, y, name: plain(short(name, 40)), text: hover, mode: "lines", hovertemplate: "%{text}<extra></extra>", line: { color: colour, width: 2, dash: i === j ? "solid" : "dash" } }];
    });
    Plotly.react("distance", traces, profileLayout("layers apart", 1.02 * result.limits[1], true), BARE);
    $("distance").setAttribute("aria-label", "Mean similarity by the number of layers between two layers; the same in the table of the map");
  }

  function choosePair({ points }) {
    [state.row, state.column] = [points[0].y, points[0].x];
    [$("row").value, $("column").value] = [state.row, state.column];
    draw();
    $("map-heading").scrollIntoView({ block: "nearest" });
  }

  function drawOverview() {
    const { result } = state;
    const n = result.models.length;
    $("overview-part").hidden = n < 3;
    if (n < 3) return;
    const z = Array.from({ length: n }, () => Array(n).fill(null));
    const hover = Array.from({ length: n }, () => Array(n).fill(""));
    for (const [i, j, mean, error] of result.means) {
      z[i][j] = z[j][i] = mean;
      const value = mean === null ? "none" : number(mean) + (error === null ? "" : ` ± ${error.toPrecision(2)}`);
      hover[i][j] = hover[j][i] = `${plain(result.models[i])}<br>${plain(result.models[j])}<br>${value}`;
    }
    const off = result.means.filter(([i, j, mean]) => i !== j && mean !== null).map(([, , mean]) => mean);
    const ends = $("scale").value === "shown" && off.length > 1 ? [Math.min(...off), Math.max(...off)] : result.limits;
    const names = result.models.map((name) => plain(short(name, innerWidth < NARROW ? 12 : 24)));
    const numbers = names.map((_, k) => k);
    const size = Math.min($("overview").clientWidth, 620);
    const every = Math.max(1, Math.ceil((n * 13) / (size * 0.7)));
    const at = { tickmode: "array", tickvals: numbers.filter((k) => k % every === 0), ticktext: names.filter((_, k) => k % every === 0), showgrid: false };
    const square = { color: css("--accent"), width: 3 };
    const fresh = !$("overview").on; // plotly gives an element its events when it first draws there
    Plotly.react("overview", [{
      type: "heatmap", z, zmin: ends[0], zmax: ends[1], text: hover, hovertemplate: "%{text}<extra></extra>",
      colorscale: colours.magma, colorbar: { thickness: 14, outlinewidth: 0 }, xgap: 1, ygap: 1,
    }], layout({
      height: size, plot_bgcolor: css("--unknown"), dragmode: n > 12 ? "zoom" : false,
      xaxis: { ...at, tickangle: -90 }, yaxis: at,
      shapes: [{ type: "rect", x0: state.column - 0.5, x1: state.column + 0.5, y0: state.row - 0.5, y1: state.row + 0.5, line: square }],
    }), n > 12 ? CONFIG : BARE);
    if (fresh) $("overview").on("plotly_click", choosePair);
    $("overview").setAttribute("role", "img");
    $("overview").setAttribute("aria-label", `Heat map of ${n} models; its values are in the table under In figures, and the lists above choose a pair`);
  }

  // Tables, made when they are opened
  function table(head, lines) {
    const made = document.createElement("table");
    const add = (parent, tag, content) => {
      const element = parent.appendChild(document.createElement(tag));
      element.textContent = content;
      if (typeof content === "string" && /^-?[\d.]+$/.test(content)) element.className = "number";
      return element;
    };
    const first = made.createTHead().insertRow();
    head.forEach((name) => { add(first, "th", name).scope = "col"; });
    const body = made.createTBody();
    for (const [name, ...values] of lines) {
      const line = body.insertRow();
      add(line, "th", name).scope = "row";
      values.forEach((value) => add(line, "td", value));
    }
    return made;
  }

  function fillTables() {
    const { result, row, column } = state;
    const [rowNames, columnNames] = [result.layers[row], result.layers[column]];
    if ($("values").open) {
      const lines = view.rows.map((i, k) => [rowNames[i], ...view.z[k].map((v) => (v === null ? "-" : number(v)))]);
      $("values").lastElementChild.replaceChildren(table([what(), ...view.columns.map((j) => columnNames[j])], lines));
    }
    if ($("matches").open) {
      const closest = result.distance ? (a, b) => a < b : (a, b) => a > b;
      const lines = view.rows.flatMap((i) => {
        let best = -1;
        let bestValue = NaN;
        for (const j of view.columns) {
          if (row === column && i === j) continue;
          const value = cell(result, "value", view.rowStart + i, view.columnStart + j);
          if (Number.isFinite(value) && (best < 0 || closest(value, bestValue))) [best, bestValue] = [j, value];
        }
        if (best < 0) return [];
        const error = cell(result, "error", view.rowStart + i, view.columnStart + best);
        return [[rowNames[i], columnNames[best], number(bestValue), Number.isFinite(error) ? error.toPrecision(2) : "-"]];
      });
      const head = [result.models[row], `most alike in ${result.models[column]}`, result.measure, "standard error"];
      $("matches").lastElementChild.replaceChildren(table(head, lines));
    }
  }

  // Choices
  function options(select, names, chosen) {
    select.replaceChildren(...names.map((name, k) => new Option(name, k)));
    select.value = chosen;
  }

  function chooseResult(number) {
    const before = state.result;
    state.result = results[number];
    const { models, fields } = state.result;
    const found = (model) => models.indexOf(before.models[model]);
    const kept = before !== state.result && found(state.row) >= 0 && found(state.column) >= 0;
    [state.row, state.column] = kept ? [found(state.row), found(state.column)] : [0, models.length > 1 ? 1 : 0];
    options($("row"), models, state.row);
    options($("column"), models, state.column);
    const shows = [["value", "similarity"], ["error", "standard error"], ["minus", "minus chance level"]];
    if (state.result.distance) shows[0][1] = "distance";
    const known = shows.filter(([name]) => fields[name === "minus" ? "chance" : name]);
    $("show").replaceChildren(...known.map(([name, label]) => new Option(label, name)));
    if (!known.some(([name]) => name === state.show)) state.show = "value";
    $("show").value = state.show;
  }

  function draw() {
    drawMap();
    drawDiagonal();
    drawDistance();
    drawOverview();
    fillTables();
  }

  // The keyboard: a cursor on the map
  function rangesNow() {
    const { xaxis, yaxis } = $("map").layout;
    return { x: [...xaxis.range], y: [...yaxis.range] };
  }

  function showRanges(ranges) {
    const at = axes(ranges);
    return Plotly.relayout("map", {
      "xaxis.range": ranges.x, "yaxis.range": ranges.y,
      "xaxis.tickvals": at.x.tickvals, "xaxis.ticktext": at.x.ticktext,
      "yaxis.tickvals": at.y.tickvals, "yaxis.ticktext": at.y.ticktext,
    });
  }

  function zoomed(range, middle, count, factor) {
    const half = Math.max(((range[1] - range[0]) / 2) * factor, 1.5);
    return [Math.max(-0.5, middle - half), Math.min(count - 0.5, middle + half)];
  }

  function showCursor() {
    if (!view.rows.length || !view.columns.length) return;
    const { i, j } = cursor;
    const square = { type: "rect", x0: j - 0.5, x1: j + 0.5, y0: i - 0.5, y1: i + 0.5, line: { color: css("--accent"), width: 3 } };
    Plotly.relayout("map", { shapes: [...view.shapes, square] });
    $("readout").textContent = about(view.rows[i], view.columns[j]).join("; ");
  }

  function onKey(event) {
    const [lastRow, lastColumn] = [view.rows.length - 1, view.columns.length - 1];
    const moves = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] };
    const factor = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) {
      const [up, right] = moves[event.key];
      cursor.i = Math.min(Math.max(cursor.i + up, 0), lastRow);
      cursor.j = Math.min(Math.max(cursor.j + right, 0), lastColumn);
      showCursor();
    } else if (event.key === "Home" || event.key === "End") {
      [cursor.i, cursor.j] = event.key === "Home" ? [0, 0] : [lastRow, lastColumn];
      showCursor();
    } else if (factor || event.key === "0") {
      const now = rangesNow();
      showRanges(factor
        ? { x: zoomed(now.x, cursor.j, lastColumn + 1, factor), y: zoomed(now.y, cursor.i, lastRow + 1, factor) }
        : { x: [-0.5, lastColumn + 0.5], y: [-0.5, lastRow + 0.5] });
    } else {
      return;
    }
    event.preventDefault();
  }

  function onChange(id, change) {
    $(id).addEventListener("change", () => { change($(id).value); draw(); });
  }

  options($("result"), results.map((result) => result.heading), 0);
  $("result-choice").hidden = results.length < 2;
  chooseResult(0);
  $("controls").hidden = $("filter-help").hidden = false;
  draw();
  onChange("result", (value) => chooseResult(Number(value)));
  onChange("row", (value) => { state.row = Number(value); });
  onChange("column", (value) => { state.column = Number(value); });
  onChange("show", (value) => { state.show = value; });
  onChange("scale", () => {});
  $("filter").addEventListener("input", () => { state.filter = patterns($("filter").value); draw(); });
  $("matches").addEventListener("toggle", fillTables);
  $("values").addEventListener("toggle", fillTables);
  $("map").addEventListener("keydown", onKey);
  $("map").on("plotly_relayout", (change) => {
    const moved = Object.keys(change).some((key) => /axis\.(range\[|autorange)/.test(key));
    if (moved) showRanges(rangesNow());
  });
  let waiting;
  const redraw = () => { clearTimeout(waiting); waiting = setTimeout(draw, 100); };
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.documentElement.dataset.ready = "yes";
})();
