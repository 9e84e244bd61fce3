-- A dissector of packetcore's packets for Wireshark, made by `packetcore dissector` of packetcore-cli @VERSION@.
--
-- To be put where Wireshark looks for plugins (Help, About Wireshark, Folders, Personal Lua Plugins), or
--     tshark -X lua_script:packetcore.lua -r capture.pcapng
-- Which ports it is for stands in PORTS below; for others there is Decode As.
--
-- What is a packet and what is malformed is judged as packetcore's decoder judges it. A run is what stands between two
-- flags, and each flag ends one run and begins the next. A run that a segment of TCP leaves open is taken up with the
-- next segment.

local FLAG, ESCAPE = "@FLAG@", "@ESCAPE@"
local ESCAPED = { @ESCAPED@ } -- what the byte after an escape makes of the two
local HEADER = { @HEADER@ } -- the place and the size of each field
local HEADER_SIZE = @HEADER_SIZE@
local MAX_PAYLOAD = @MAX_PAYLOAD@
local PORTS = { @PORTS@ }
local REASONS = {
@REASONS@
}

local PT_TCP = 2 -- of pinfo.port_type
local SHOWN = 5 -- packets named in the column Info, which takes no more than 256 characters

local packetcore = Proto("packetcore", "packetcore")
packetcore.prefs.max_payload =
    Pref.uint("Longest payload", MAX_PAYLOAD, "In bytes; what announces more is malformed: TOO_LONG")

local fields = {
    id = ProtoField.uint16("packetcore.id", "id", base.DEC_HEX),
    type = ProtoField.uint8("packetcore.type", "type", base.DEC_HEX),
    count = ProtoField.uint16("packetcore.count", "count", base.DEC, nil, nil, "How many packets its message takes"),
    length = ProtoField.uint32("packetcore.length", "length", base.DEC, nil, nil, "Bytes of payload"),
    payload = ProtoField.bytes("packetcore.payload", "payload"),
    reason = ProtoField.string("packetcore.reason", "reason", base.ASCII, "Why bytes are no packet"),
    size = ProtoField.uint32("packetcore.size", "size", base.DEC, nil, nil, "Bytes that are no packet"),
}
packetcore.fields = fields

local experts, all_experts = {}, {}
for name, text in pairs(REASONS) do
    local severity = name == "NOISE" and expert.severity.WARN or expert.severity.ERROR
    experts[name] = ProtoExpert.new("packetcore." .. name:lower(), text, expert.group.MALFORMED, severity)
    table.insert(all_experts, experts[name])
end
packetcore.experts = all_experts

local tcp_stream, tcp_seq, tcp_len = Field.new("tcp.stream"), Field.new("tcp.seq"), Field.new("tcp.len")
local tcp_fin, tcp_reset = Field.new("tcp.flags.fin"), Field.new("tcp.flags.reset")

-- Of each direction of each stream of TCP: where a run begins whose flag is in what was dissected before, where that
-- has left off, and how long the run is that it left open. By the number of a packet: whether what is put together with
-- it begins so; and how long the run is that the end of the stream cuts short there.
local begins, left_off, open, taken_up, truncated = {}, {}, {}, {}, {}

function packetcore.init()
    begins, left_off, open, taken_up, truncated = {}, {}, {}, {}, {}
end

local function last(field)
    local values = { field() }
    return values[#values]
end

local function direction(pinfo)
    local stream = last(tcp_stream)
    return stream and string.format("%s %s:%d", tostring(stream), tostring(pinfo.src), pinfo.src_port)
end

local function place(whose, sequence)
    return string.format("%s %.0f", whose, sequence % 2 ^ 32)
end

-- The header at the beginning of a run: the bytes that it takes as sent, and the length in it; nil if it is not whole.
local function header(run)
    local plain, at = {}, 1
    while #plain < HEADER_SIZE do
        local char = run:sub(at, at)
        if char == ESCAPE then
            at = at + 1
            char = ESCAPED[run:byte(at)]
        end
        if char == nil or char == "" then
            return nil
        end
        table.insert(plain, char)
        at = at + 1
    end
    local length = 0
    for place = HEADER.length[1] + 1, HEADER.length[1] + HEADER.length[2] do
        length = length * 256 + plain[place]:byte()
    end
    return at - 1, length
end

-- How many bytes of a run prove that it is too long; nil if none do.
local function too_long(run)
    local max_payload = packetcore.prefs.max_payload
    local size, length = header(run:sub(1, 2 * HEADER_SIZE))
    if size and length > max_payload then
        return size
    end
    local bound = 2 * (max_payload + HEADER_SIZE) -- nothing but escapes
    return #run > bound and bound + 1 or nil
end

-- What was escaped into a run; nil for a bad escape.
local function unescape(run)
    local is_bad = false
    local plain = run:gsub(ESCAPE .. "(.?)", function(code)
        local char = ESCAPED[code:byte()]
        is_bad = is_bad or char == nil
        return char
    end)
    if is_bad then
        return nil
    end
    return plain
end

-- What one call of the dissector shows.
local function new_view(pinfo, tree)
    local view, told = {}, {}

    local function tell(text)
        table.insert(told, text)
    end

    function view.malformed(range, name, size)
        local item = tree:add(packetcore, range, string.format("packetcore, %s: %d bytes", name, size))
        item:add(fields.reason, range, name)
        item:add(fields.size, range, size):set_generated()
        item:add_proto_expert_info(experts[name])
        tell(name)
    end

    -- A packet: the bytes of its frame, those between the flags, and what was escaped into them.
    function view.packet(frame, range, plain)
        local body = range
        if #plain < range:len() then
            body = ByteArray.new(plain, true):tvb("packetcore packet, unescaped"):range()
        end
        local item = tree:add(packetcore, frame)
        local values = {}
        for _, name in ipairs({ "id", "type", "count", "length" }) do
            local part = body:range(HEADER[name][1], HEADER[name][2])
            item:add(fields[name], part)
            table.insert(values, name .. " " .. part:uint())
        end
        if #plain > HEADER_SIZE then
            item:add(fields.payload, body:range(HEADER_SIZE))
        end
        local text = table.concat(values, "  ")
        item:set_text("packetcore, " .. text)
        tell(text)
    end

    function view.finish()
        if #told == 0 then
            return
        end
        pinfo.cols.protocol = "packetcore"
        local shown = table.concat(told, " | ", 1, math.min(#told, SHOWN))
        if #told > SHOWN then
            shown = shown .. string.format(" | and %d more", #told - SHOWN)
        end
        pinfo.cols.info:set(shown .. " ")
        pinfo.cols.info:fence() -- what the next call for the same packet shows stands behind it
    end

    return view
end

-- A run that a flag has ended; `at` is the place of its first byte, and the flag before it is shown with it.
local function judge(view, tvb, at, run)
    local plain = unescape(run)
    local proof = too_long(run)
    local range = tvb:range(at, #run)
    if proof then
        view.malformed(tvb:range(at, proof), "TOO_LONG", proof)
        if proof < #run then
            view.malformed(tvb:range(at + proof, #run - proof), "NOISE", #run - proof)
        end
    elseif plain == nil then
        view.malformed(range, "BAD_ESCAPE", #run)
    elseif #plain < HEADER_SIZE then
        view.malformed(range, "TOO_SHORT", #run)
    else
        local _, length = header(run)
        if length ~= #plain - HEADER_SIZE then
            view.malformed(range, "LENGTH_MISMATCH", #run)
        else
            local start = math.max(at - 1, 0)
            view.packet(tvb:range(start, at + #run + 1 - start), range, plain)
        end
    end
end

-- The runs that end here. Returns where the last one begins, whether it is one, and its bytes.
local function dissect(view, tvb, in_run)
    local data = tvb:raw()
    local at = 1
    local flag = data:find(FLAG, at, true)
    while flag do
        if flag > at and in_run then
            judge(view, tvb, at - 1, data:sub(at, flag - 1))
        elseif flag > at then
            view.malformed(tvb:range(at - 1, flag - at), "NOISE", flag - at)
        end
        in_run = true
        at = flag + 1
        flag = data:find(FLAG, at, true)
    end
    return at - 1, in_run, data:sub(at)
end

-- Where in the stream the first byte is, and whether a run begins with it, though there is no flag before it.
local function start(tvb, pinfo, whose)
    if not whose then
        return nil, false
    end
    local sequence = last(tcp_seq).value
    if tvb:offset() > 0 then
        sequence = sequence + last(tcp_len).value - tvb:reported_len()
        return sequence, begins[place(whose, sequence)] == true
    end
    -- It is put together of several segments, from where the last call has left off. When it is dissected once more,
    -- Wireshark has taken out of it what was left open again.
    if not pinfo.visited then
        sequence = left_off[whose] or sequence
        taken_up[pinfo.number] = begins[place(whose, sequence)] == true
    end
    return sequence, taken_up[pinfo.number] == true
end

function packetcore.dissector(tvb, pinfo, tree)
    local view = new_view(pinfo, tree)
    local whose = pinfo.port_type == PT_TCP and direction(pinfo) or nil
    local sequence, begins_here = start(tvb, pinfo, whose)
    local at, in_run, rest = dissect(view, tvb, begins_here)
    local is_open = false
    if #rest > 0 then
        local range = tvb:range(at)
        if not in_run then
            view.malformed(range, "NOISE", #rest)
        elseif too_long(rest) then
            judge(view, tvb, at, rest)
        elseif tvb:captured_len() < tvb:reported_len() then
            tree:add(packetcore, range, "packetcore, a frame of which the capture has no more")
        elseif whose and pinfo.can_desegment > 0 then
            is_open = true
            -- Not from the flag before it: where that is the first byte of this segment, Wireshark would take what
            -- ends there as not dissected, and have all of it dissected once more with the next segment.
            pinfo.desegment_offset = at
            pinfo.desegment_len = DESEGMENT_ONE_MORE_SEGMENT
        elseif whose then
            tree:add(packetcore, range, "packetcore, a frame that goes on: reassembly of TCP is off in the preferences")
        else
            view.malformed(range, "TRUNCATED", #rest)
        end
    end
    if whose and not pinfo.visited then
        local next_run = sequence + (is_open and at or tvb:reported_len())
        begins[place(whose, next_run)] = is_open or (in_run and #rest == 0) or nil
        left_off[whose] = next_run
        open[whose] = is_open and #rest or nil
    end
    view.finish()
    return tvb:len()
end

-- The end of a stream has no bytes for a dissector.
local ending = Proto("packetcore_end", "packetcore, ends of streams")

function ending.dissector(tvb, pinfo, tree)
    local number = pinfo.number
    if not pinfo.visited and next(open) ~= nil then
        local whose = direction(pinfo)
        local has_ended = whose and open[whose] and (last(tcp_fin).value or last(tcp_reset).value)
        if has_ended then
            truncated[number] = open[whose]
            open[whose] = nil
        end
    end
    if truncated[number] then
        local view = new_view(pinfo, tree)
        view.malformed(tvb:range(0, 0), "TRUNCATED", truncated[number])
        view.finish()
    end
end

register_postdissector(ending)

for _, name in ipairs({ "tcp.port", "udp.port" }) do
    local ports = DissectorTable.get(name)
    ports:add_for_decode_as(packetcore)
    for _, port in ipairs(PORTS) do
        ports:add(port, packetcore)
    end
end
