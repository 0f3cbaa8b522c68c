-- Health of a FineTuneWorkspace for Argo CD, by the conditions that kstatus reads:
-- Ready is healthy, Stalled is degraded, Suspended is suspended, and anything else is on its way.
local health = {status = "Progressing", message = "the operator has not looked at it yet"}
local status = obj.status
if obj.metadata.deletionTimestamp ~= nil then
  health.message = "it is being deleted"
  return health
end
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not looked at the last change yet"
  return health
end
local holds, ready = {}, nil
for _, condition in ipairs(status.conditions) do
  holds[condition.type] = condition.status == "True"
  if condition.type == "Ready" then
    ready = condition
  end
end
if ready ~= nil then
  health.message = ready.reason .. ": " .. ready.message
end
if holds["Ready"] then
  health.status = "Healthy"
elseif holds["Suspended"] then
  health.status = "Suspended"
elseif holds["Stalled"] then
  health.status = "Degraded"
end
return health
